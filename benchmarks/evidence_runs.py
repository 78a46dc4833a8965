"""Simulated rollouts, judged by what gateways judge with."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from marway.wire.rollouts import GUARD_LIMITS
from marway_gateway.traffic.evidence import Evidence, QualityCounts, judged, merged
from marway_gateway.traffic.evidence.capital import Batch, log_mean
from marway_gateway.traffic.evidence.counts import LiveCounts, PairCounts
from marway_gateway.traffic.evidence.judging import Step, log_worse, test_limit, tolerated
from marway_gateway.traffic.evidence.planning import least_s

LIMITS = {guard: limit for guard, limit in GUARD_LIMITS.items() if guard != "memory"}
GUARDS: dict[str, float | None] = dict.fromkeys(LIMITS)
ALPHA = 0.01
LOOK_S = 2
STEPS = (1, 5, 25, 100)
STEP_TIME_S = 60
# In how many requests one version alone has the event though both are as good, and in how many both have it.
ALONE = {"latency": 0.08, "tail": 0.005, "disagreement": 0.01, "quality": 0.01}
BOTH = {"errors": 0.002, "latency": 0.02, "quality": 0.08}
COPIED_ONLY = ("shape", "disagreement")
TESTS = {"latency": "p50", "tail": "p99"}


@dataclass(frozen=True)
class Candidate:
    """How much more often it has each event than its base, as fractions of requests, and from which step on."""

    worse: Mapping[str, float] = field(default_factory=dict)
    from_step: int = 0


class Outcome(NamedTuple):
    end: str
    seconds: int
    calls: int
    touched: int


class Simulation:
    """Counts of one rollout, as gateways would have them."""

    def __init__(self, candidate: Candidate, rate: int, seed: int, guards: Mapping[str, float | None] = GUARDS) -> None:
        self._candidate, self._rate = candidate, rate
        self._draw = np.random.default_rng(seed)
        self._kinds = [kind for guard in guards for kind in ((guard, "tail") if guard == "latency" else (guard,))]
        self._live: dict[tuple[int, float], dict[str, Any]] = {}
        self._pairs: dict[int, dict[str, Any]] = {}
        self._quality = np.zeros(3, dtype=int)
        self.calls = self.touched = 0

    def second(self, step: int, share: float) -> None:
        """Let one second of traffic pass."""
        answered = int(self._draw.binomial(self._rate, share))
        copied = self._rate - answered
        self.calls += self._rate
        worst = 0
        for kind in self._kinds:
            more = self._candidate.worse.get(kind, 0.0) if step >= self._candidate.from_step else 0.0
            alone, both = ALONE.get(kind, 0.0), BOTH.get(kind, 0.0)
            better = min(alone, (1 - more - both) / 2) if more < 1 else 0.0
            both = min(both, 1 - more - better)
            worse = min(1 - both - better, more + better)
            worst = max(worst, int(self._draw.binomial(answered, min(1.0, more))))
            pair = self._draw.multinomial(copied, [worse, better, max(0.0, 1 - worse - better)])
            if kind == "quality":
                self._quality += pair
                continue
            test = TESTS.get(kind, kind)
            if kind in COPIED_ONLY:
                differ = int(self._draw.binomial(copied, max(more, alone)))
                pair = np.array([differ, 0, copied - differ])
            else:
                rows = self._live.setdefault((step, share), {}).setdefault(test, np.zeros(4, dtype=int))
                events = self._draw.binomial(copied, better + both), self._draw.binomial(answered, worse + both)
                rows += np.array([copied, events[0], answered, events[1]])
            self._pairs.setdefault(step, {}).setdefault(test, np.zeros(3, dtype=int))[:] += pair
        self.touched += worst

    def evidence(self) -> Evidence:
        """Return the counts so far."""
        names = ("base", "base_events", "candidate", "candidate_events")
        live = [
            {
                "step": step,
                "share": share,
                "tests": {t: dict(zip(names, map(int, row), strict=True)) for t, row in rows.items()},
            }
            for (step, share), rows in self._live.items()
        ]
        pairs = [
            {"step": step, "tests": {t: _named(("pairs", "worse", "better"), _paired(row)) for t, row in rows.items()}}
            for step, rows in self._pairs.items()
        ]
        return Evidence.model_validate({"live": live, "pairs": pairs})

    def case(self, limit: float) -> float:
        """Return the logarithm of the capital against the candidate, in the first step, over the tests of one guard."""
        share = next(iter(self._live))[1] if self._live else 0.0
        rows = self._live.get((0, share), {})
        if not self._pairs:
            worse, better, same = self._quality
            step = Step(0, [], [Batch(-1.0, 1.0, ((1.0, worse), (-1.0, better), (0.0, same)))])
            return log_worse([step], limit)
        logs = []
        for test, (worse, better, same) in self._pairs[0].items():
            pairs = PairCounts.model_construct(pairs=worse + better + same, worse=worse, better=better)
            live = [_live(rows[test]).batch(share)] if test in rows else []
            step = Step(0, live, [pairs.batch(signed=test not in COPIED_ONLY)])
            logs.append(log_worse([step], test_limit(test, limit)))
        return log_mean(logs)

    def quality(self) -> QualityCounts:
        """Return what feedback on all pairs says."""
        worse, better, same = map(int, self._quality)
        return QualityCounts(pairs={"1": worse, "-1": better, "0": same})


def _named(names: Sequence[str], row: Any) -> dict[str, int]:
    return dict(zip(names, map(int, row), strict=True))


def _paired(row: Any) -> tuple[int, int, int]:
    worse, better, same = row
    return worse + better + same, worse, better


def rollout(candidate: Candidate, rate: int, seed: int) -> Outcome:
    """Run a whole rollout, decided as gateways decide."""
    run = Simulation(candidate, rate, seed)
    total = 0
    for step, percent in enumerate(STEPS):
        if percent == 100:
            break
        for second in range(1, STEP_TIME_S + 1):
            run.second(step, percent / 100)
            total += 1
            if second % LOOK_S:
                continue
            found = judged(run.evidence(), GUARDS, ALPHA, step, quality=run.quality()).values()
            if any(each.verdict == "worse" for each in found):
                return Outcome("rolled back", total, run.calls, run.touched)
            if second >= least_s(STEP_TIME_S) and all(each.verdict == "not_worse" for each in found):
                break
        else:
            return Outcome("paused", total, run.calls, run.touched)
    return Outcome("promoted", total, run.calls, run.touched)


def watched(candidate: Candidate, rate: int, seconds: int, seed: int) -> bool:
    """Return whether one guard ever accuses a candidate that stays at one percent."""
    guard = next(iter(candidate.worse))
    run = Simulation(candidate, rate, seed, {guard: None})
    if guard == "latency":  # the slowest ones are at their own limit
        run = Simulation(Candidate({"latency": LIMITS[guard], "tail": LIMITS[guard] / 10}), rate, seed, {guard: None})
    # One guard has all of alpha here: the bound is the same as for all of them together. Only the case against it is
    # looked at, which `judged` does beside much else.
    return any(run.case(tolerated(guard, LIMITS[guard])) >= -math.log(ALPHA) for _ in _looks(run, 0.01, seconds))


def _looks(run: Simulation, share: float, seconds: int) -> Iterator[None]:
    for second in range(1, seconds + 1):
        run.second(0, share)
        if second % LOOK_S == 0:
            yield


def many_gateways(candidate: Candidate, rate: int, seconds: int, seed: int) -> bool:
    """Return whether any of three gateways ever accuses, each with its own counts and those of the others of before."""
    runs = [Simulation(candidate, rate // 3, seed * 3 + at, {"errors": None}) for at in range(3)]
    before = [run.evidence() for run in runs]
    for _ in range(seconds // LOOK_S):
        for run in runs:
            for _ in range(LOOK_S):
                run.second(0, 0.01)
        now = [run.evidence() for run in runs]
        for at in range(3):
            known = merged([now[at], *(before[other] for other in range(3) if other != at)])
            if judged(known, {"errors": None}, ALPHA, 0)["errors"].verdict == "worse":
                return True
        before = now
    return False


def live_only(rate: int, seconds: int, seed: int) -> bool:
    """Return whether equal versions are told apart by callers' answers, while inputs that fail come and go."""
    draw, share = np.random.default_rng(seed), 0.05
    row = np.zeros(4, dtype=int)
    for second in range(1, seconds + 1):
        failing = 0.2 if second % 60 > 45 else 0.001
        answered = draw.binomial(rate, share)
        row += [rate - answered, draw.binomial(rate - answered, failing), answered, draw.binomial(answered, failing)]
        # Against "not worse at all": a limit would leave it room.
        case = [Step(0, [_live(row).batch(share)], [])]
        if second % LOOK_S == 0 and log_worse(case, 0.0) >= -math.log(ALPHA):
            return True
    return False


def _live(row: Any) -> LiveCounts:
    base, base_events, candidate, candidate_events = (int(each) for each in row)
    return LiveCounts.model_construct(
        base=base, base_events=base_events, candidate=candidate, candidate_events=candidate_events
    )


def fixed_sample(rate: int, seconds: int, seed: int) -> bool:
    """Return whether equal versions differ at any look by a one-sided z-test, p < 0.01, as if it were the only one."""
    draw = np.random.default_rng(seed)
    events = np.zeros(2)
    for second in range(1, seconds + 1):
        events += draw.binomial(rate // 2, 0.05, size=2)
        if second % LOOK_S == 0:
            size = second * (rate // 2)
            pooled = events.sum() / (2 * size)
            spread = math.sqrt(2 * pooled * (1 - pooled) / size)
            if spread and (events[1] - events[0]) / size / spread > 2.326:
                return True
    return False
