"""A verdict by guard, from what was counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from marway.wire.rollouts import GUARD_LIMITS, GuardEvidence, Verdict
from marway_gateway.traffic.evidence.capital import Batch, log_capital, log_mean, mean, upper_bound
from marway_gateway.traffic.evidence.counts import TESTS, Evidence, LiveCounts, PairCounts, QualityCounts
from marway_gateway.traffic.evidence.memory import MemorySample, memory_evidence

__all__ = ["TAIL", "Step", "judged", "log_worse", "test_limit", "tolerated"]

TAIL: Final = 0.1
"""Of the limit of `latency`, how much of it holds for the slowest requests (p99)."""
_TOLERATED: Final[Mapping[str, float]] = MappingProxyType({"errors": 0.25, "finite": 0.25, "quality": 0.25})
"""Of the limit, how much worse a candidate may be without being called worse; all of it where a test is not named.

To be sure that 2 % more fail rather than 1 % takes several times as many answers as to be sure that it is more than
0.25 %: a minute, and seconds. With quality it is 5 to 15 times, as both versions are wrong about some of the same
requests and some of others.
"""
_UNSIGNED: Final = frozenset({"shape", "disagreement"})
"""Tests where the candidate cannot be better than the base."""


class Step(NamedTuple):
    """Outcomes of one test in one step: groups that may depend on one another, so that each is bet on apart."""

    step: int
    live: Sequence[Batch]
    pairs: Sequence[Batch]


def test_limit(test: str, limit: float) -> float:
    """Return a test's limit, from that of its guard."""
    return limit * TAIL if test == "p99" else limit


def tolerated(test: str, limit: float) -> float:
    """Return how much worse a candidate may be by a test without being called worse."""
    return test_limit(test, limit) * _TOLERATED.get(test, 1.0)


def judged(
    evidence: Evidence,
    guards: Mapping[str, float | None],
    alpha: float,
    step: int,
    *,
    sticky: str = "request",
    quality: QualityCounts | None = None,
    memory: Sequence[MemorySample] | None = None,
) -> dict[str, GuardEvidence]:
    """Return what each guard says of the candidate now.

    `worse`: "the candidate is worse by no more than the limit" (`errors`, `finite` and `quality`: than a quarter of it,
    so that it is found soon) is refuted, at alpha divided by the number of guards: a candidate that is within all of
    that is called worse by any guard, ever, with a probability of at most alpha (Bonferroni over guards, Ville over
    looks). `not_worse`: "it is worse by the limit or more" is refuted at alpha: a candidate passes where ALL guards say
    so, which one that is not within every limit does with a probability of at most alpha (Berger, 1982: Multiparameter
    hypothesis testing and acceptance sampling: no division needed).

    Callers' answers and copies are bet on with half of the stake each, for one request may be in both; evidence of
    steps is multiplied. So that a candidate that becomes bad late does not live on its good name, part of the stake is
    kept for each later step (a mixture over when the change came: Shin, Ramdas and Rinaldo, 2024: E-detectors).

    Args:
        evidence: The counts of all gateways: see `merged`.
        guards: What is watched, with the limit of each; None is its default.
        alpha: Bound for the probability of a false alarm over all guards.
        step: Which step the rollout is at. Without any answer of the candidate to callers in it no guard passes.
        sticky: What callers keep their side by. Unless that is `request`, callers' answers are told and not judged: one
            caller whom the model always fails would speak for thousands. Copies do not mind.
        quality: What feedback says; None where it says nothing yet.
        memory: The candidate's memory over time; None where no pod says.

    Raises:
        ValueError: A guard is not known.
    """
    unknown = sorted(set(guards) - set(GUARD_LIMITS))
    if unknown:
        raise ValueError(f"no such guard: {', '.join(unknown)} (there are {', '.join(GUARD_LIMITS)})")
    level = alpha / max(1, len(guards))
    answered = any(row.candidate for each in evidence.live if each.step == step for row in each.tests.values())
    found: dict[str, GuardEvidence] = {}
    for guard, given in guards.items():
        limit = GUARD_LIMITS[guard] if given is None else given
        if guard == "memory":
            found[guard] = (
                memory_evidence(memory, limit)
                if memory
                else _nothing(limit, "no pod has said how much memory the candidate's workers have")
            )
        elif guard == "quality":
            found[guard] = _quality(quality, limit, level, alpha, sticky)
        else:
            found[guard] = _counted(guard, evidence, limit, level, alpha, sticky)
        if not answered and found[guard].verdict == "not_worse":
            waiting = "the candidate has answered no caller in this step yet"
            found[guard] = found[guard].model_copy(update={"verdict": "unclear", "missing": waiting})
    return found


def _nothing(limit: float, missing: str) -> GuardEvidence:
    return GuardEvidence(verdict="unclear", limit=limit, missing=missing)


def _counted(guard: str, evidence: Evidence, limit: float, level: float, alpha: float, sticky: str) -> GuardEvidence:
    tests = TESTS[guard]
    results, counts = [], dict[str, float]()
    for test in tests:
        steps: dict[int, Step] = {}
        live, pairs = LiveCounts(), PairCounts()
        for row in evidence.live:
            of_live = row.tests.get(test)
            if of_live is None or not 0 < row.share < 1:
                continue
            live += of_live
            if sticky == "request":
                before = steps.get(row.step, Step(row.step, (), ()))
                steps[row.step] = before._replace(live=(*before.live, of_live.batch(row.share)))
        for copied in evidence.pairs:
            of_pairs = copied.tests.get(test)
            if of_pairs is not None:
                pairs += of_pairs
                before = steps.get(copied.step, Step(copied.step, (), ()))
                batch = of_pairs.batch(signed=test not in _UNSIGNED)
                steps[copied.step] = before._replace(pairs=(*before.pairs, batch))
        named = {**live.model_dump(), **pairs.model_dump()}
        if test in _UNSIGNED:
            named = {"pairs": pairs.pairs, "differ": pairs.worse}
        counts.update({(f"{test}_{name}" if len(tests) > 1 else name): count for name, count in named.items()})
        results.append(_tested(test, [steps[at] for at in sorted(steps)], limit, level, alpha))
    missing = "no answer is counted yet"
    if guard == "latency":
        missing = "it counts from when the base has answered 200 requests on each gateway, with times from the pod"
    elif guard in _UNSIGNED:
        missing = "no copy's answer was compared yet"
    if sticky != "request" and not evidence.pairs:
        missing = "callers keep their side, so that only copies are judged, and there are none: see --shadow"
    return _guard(results, counts, limit, missing)


def _quality(quality: QualityCounts | None, limit: float, level: float, alpha: float, sticky: str) -> GuardEvidence:
    if quality is None:
        return _nothing(limit, "no feedback on answers of this rollout has come yet")
    steps: dict[int, Step] = {}
    for each in quality.live if sticky == "request" else ():
        before = steps.get(each.step, Step(each.step, (), ()))
        steps[each.step] = before._replace(live=(*before.live, each.batch()))
    if quality.pairs:
        first = min(steps, default=0)
        paired = Batch(-1.0, 1.0, tuple((float(value), count) for value, count in quality.pairs.items()))
        steps[first] = steps.get(first, Step(first, (), ()))._replace(pairs=(paired,))
    counts = {
        "pairs": sum(quality.pairs.values()),
        "base": sum(sum(each.base.values()) for each in quality.live),
        "candidate": sum(sum(each.candidate.values()) for each in quality.live),
    }
    result = _tested("quality", [steps[at] for at in sorted(steps)], limit, level, alpha)
    return _guard([result], counts, limit, "no feedback on answers of this rollout has come yet")


class _Result(NamedTuple):
    """Of one test."""

    limit: float
    log_worse: float
    passes: bool
    estimate: float | None
    bound: float | None
    level: float


def _tested(test: str, steps: Sequence[Step], limit: float, level: float, alpha: float) -> _Result:
    groups, most = _groups(steps), test_limit(test, limit)
    bound = upper_bound(groups, alpha)
    worse = log_worse(steps, tolerated(test, limit))
    return _Result(most, worse, bound is not None and bound <= most, _estimate(steps), bound, level)


def _groups(steps: Sequence[Step]) -> list[list[Batch]]:
    return [[batch for each in steps for batch in each.live], [batch for each in steps for batch in each.pairs]]


def log_worse(steps: Sequence[Step], limit: float) -> float:
    """Return the logarithm of the capital against "worse by no more than the limit".

    Bets begin with each step: with half of the stake in the first, a quarter in the next, and so on.
    """
    logs, weights = [], []
    left = 1.0
    for at in range(len(steps)):
        left /= 2
        logs.append(log_capital(_groups(steps[at:]), limit))
        weights.append(left)
    return log_mean([*logs, 0.0], [*weights, left])


def _estimate(steps: Sequence[Step]) -> float | None:
    """The mean of both kinds, each weighed by how much it says: a pair as one, a caller by share (1 - share)."""
    total = weight = 0.0
    for each in steps:
        for batch in (*each.live, *each.pairs):
            value = mean(batch)
            if value is not None:
                says = sum(count for _, count in batch.outcomes) / (batch.high * -batch.low if batch.scale else 1.0)
                total += value * says
                weight += says
    return total / weight if weight else None


def _guard(results: Sequence[_Result], counts: Mapping[str, float], limit: float, missing: str) -> GuardEvidence:
    """One guard of several tests: bets share the stake, and all must pass. It tells of the one that decides."""
    log_worse = log_mean([each.log_worse for each in results])
    needed = -math.log(results[0].level)
    verdict: Verdict = "unclear"
    if log_worse >= needed:
        verdict = "worse"
    elif all(each.passes for each in results):
        verdict = "not_worse"
    if verdict == "worse":
        deciding = max(results, key=lambda each: each.log_worse)
    else:
        deciding = max(results, key=lambda each: math.inf if each.bound is None else each.bound / max(each.limit, 1e-9))
    reason: str | None = None
    if verdict == "unclear":
        reason = missing
        if deciding.bound is not None:
            reason = f"it is worse by at most {deciding.bound:.2%}, which has to come down to {deciding.limit:.2%}"
    return GuardEvidence(
        verdict=verdict,
        counts=dict(counts),
        estimate=deciding.estimate,
        bound=deciding.bound,
        limit=deciding.limit,
        evidence=round(max(0.0, log_worse / needed), 4),
        missing=reason,
    )
