"""What a rollout would do and notice, worked out from the same tests before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

from marway.wire.rollouts import GUARD_LIMITS, GuardPlan, RolloutPlan, StepPlan
from marway_gateway.traffic.evidence.capital import Batch, upper_bound
from marway_gateway.traffic.evidence.counts import TESTS, live_batch
from marway_gateway.traffic.evidence.judging import Step, log_worse, test_limit, tolerated

__all__ = ["least_s", "plan_of"]

_COMMON: Final[Mapping[str, float]] = MappingProxyType(
    {"p50": 0.1, "p99": 0.005, "disagreement": 0.01, "quality": 0.02}
)
"""In how many requests one version alone has the event though both are as good; 0 for tests that are not named."""
_SIZES: Final = (0.02, 0.05, 0.2, 1.0)
"""Changes for which it is told how soon they are found: fractions of requests."""
_COPIED_ONLY: Final = frozenset({"shape", "disagreement"})
_QUARTER: Final = "rolled back from a quarter of the limit on"
_NOTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "latency": "slower than 1.3 times the base's median and 0.5 ms; a tenth of the limit is for slower than 1.5 "
        "times its 99th percentile and 5 ms. Counted from the base's 200th answer on each gateway",
        "shape": "fields, types, kind of status and content, not values; only of copies",
        "errors": _QUARTER,
        "finite": _QUARTER,
        "disagreement": "decisions, not scores; only of copies. Who is to answer otherwise needs a higher limit",
        "quality": f"as fast as feedback comes: these times are for the truth of every request at once; {_QUARTER}",
        "memory": "the candidate's workers against the base's; found once it has grown by the limit",
    }
)
_LEAST_S: Final = 10.0


def least_s(step_time_s: float) -> float:
    """Return how long a step lasts at least, in seconds, for what comes late to be seen."""
    return min(_LEAST_S, step_time_s / 2)


def plan_of(
    guards: Mapping[str, float | None],
    alpha: float,
    steps: Sequence[float],
    rate_per_s: float,
    shadow_percent: float,
    *,
    step_time_s: float = 60.0,
    sticky: str = "request",
) -> RolloutPlan:
    """Return what a rollout would do, and notice, at this rate of requests.

    Times are those at which evidence that grows as expected would suffice; chance makes them up to about twice as long.

    Args:
        guards: What is watched, with the limit of each; None is its default.
        alpha: Bound for the probability of a false alarm over all guards.
        steps: Percents, one after the other.
        rate_per_s: Requests of the label a second.
        shadow_percent: How many of the base's answers are compared with the candidate's.
        step_time_s: How long a step may take, in seconds.
        sticky: What callers keep their side by.

    Raises:
        ValueError: A guard is not known, or there is no step.
    """
    if not steps:
        raise ValueError("a rollout has at least one step")
    unknown = sorted(set(guards) - set(GUARD_LIMITS))
    if unknown:
        raise ValueError(f"no such guard: {', '.join(unknown)} (there are {', '.join(GUARD_LIMITS)})")
    level = alpha / max(1, len(guards))
    live_share = steps[0] / 100 if sticky == "request" else 0.0
    pairs_per_s = rate_per_s * (1 - steps[0] / 100) * shadow_percent / 100
    plans = {}
    for guard, given in guards.items():
        limit = GUARD_LIMITS[guard] if given is None else given
        if guard == "memory":
            plans[guard] = GuardPlan(
                limit=limit, passes_after_s=least_s(step_time_s), smallest=limit, note=_NOTES[guard]
            )
            continue
        plans[guard] = _Watch(guard, limit, rate_per_s, live_share, pairs_per_s, step_time_s).plan(level, alpha)
    least = least_s(step_time_s)
    waits = [each.passes_after_s for each in plans.values()]
    first = None if any(each is None for each in waits) else max([least, *(each for each in waits if each is not None)])
    planned = []
    for at, percent in enumerate(steps):
        if percent >= 100:
            planned.append(StepPlan(percent=percent, at_least_s=0.0, expected_s=0.0))
        else:
            planned.append(
                StepPlan(percent=percent, at_least_s=least, expected_s=least if at and first is not None else first)
            )
    return RolloutPlan(
        steps=tuple(planned),
        step_time_s=step_time_s,
        guards=plans,
        rate_per_s=rate_per_s,
        shadow_percent=shadow_percent,
        alpha=alpha,
        expected_s=None if first is None else sum(each.expected_s or 0.0 for each in planned),
        notes=tuple(_notes(plans, rate_per_s, shadow_percent, sticky)),
    )


def _notes(plans: Mapping[str, GuardPlan], rate_per_s: float, shadow_percent: float, sticky: str) -> list[str]:
    notes = []
    late = [guard for guard, plan in plans.items() if plan.passes_after_s is None]
    if not rate_per_s:
        notes.append("No request of this label has come lately: each step waits its time, then for a person.")
    elif late:
        notes.append(
            f"At this rate {', '.join(late)} cannot be told not worse within a step's time: the rollout will pause for "
            "a person. A longer --step-time, a higher limit or more copies (--shadow) change that."
        )
    if not shadow_percent:
        notes.append("Without copies only callers' answers are evidence, and shape and disagreement are not seen.")
    if sticky != "request":
        notes.append(
            "Callers keep their side: only copies are judged, for one caller would speak for all its requests."
        )
    return notes


class _Watch:
    """One guard at one rate."""

    def __init__(
        self, guard: str, limit: float, rate_per_s: float, share: float, pairs_per_s: float, step_time_s: float
    ) -> None:
        self._guard, self._limit = guard, limit
        self._rate, self._share, self._pairs = rate_per_s, share, pairs_per_s
        self._time = step_time_s
        self._tests = TESTS.get(guard, (guard,))

    def plan(self, level: float, alpha: float) -> GuardPlan:
        """Return what it finds, and when."""
        found = {}
        for size in _SIZES:
            if size > tolerated(self._tests[0], self._limit):
                after = _least(partial(self._worse, level=level, size=size), self._time)
                if after is not None:
                    found[f"{size:g}"] = round(after, 1)
        smallest = _least(lambda size: self._worse(self._time, level=level, size=size), 1.0)
        passes = _least(lambda seconds: self._passes(seconds, alpha), self._time)
        return GuardPlan(
            limit=self._limit,
            passes_after_s=None if passes is None else round(passes, 1),
            smallest=None if smallest is None else round(smallest, 4),
            found=found,
            note=_NOTES.get(self._guard),
        )

    def _worse(self, seconds: float, *, level: float, size: float) -> bool:
        # The stake is divided among the tests of a guard; a change is one of the first of them.
        needed = -math.log(level / len(self._tests))
        return (
            log_worse([self._expected(self._tests[0], size, seconds)], tolerated(self._tests[0], self._limit)) >= needed
        )

    def _passes(self, seconds: float, alpha: float) -> bool:
        for test in self._tests:
            step = self._expected(test, 0.0, seconds)
            bound = upper_bound([step.live, step.pairs], alpha)
            if bound is None or bound > test_limit(test, self._limit):
                return False
        return True

    def _expected(self, test: str, size: float, seconds: float) -> Step:
        """Outcomes as they are expected of a candidate that is worse by `size`."""
        common = _COMMON.get(test, 0.0)
        live: list[Batch] = []
        pairs: list[Batch] = []
        count = self._pairs * seconds
        if count and test in _COPIED_ONLY:
            differ = min(1.0, size + common)
            pairs.append(Batch(0.0, 1.0, ((1.0, count * differ), (0.0, count * (1 - differ)))))
        elif count:
            better = min(common, (1 - size) / 2)
            worse = min(1.0, size + better)
            pairs.append(
                Batch(-1.0, 1.0, ((1.0, count * worse), (-1.0, count * better), (0.0, count * (1 - worse - better))))
            )
        calls = self._rate * seconds
        if calls and 0 < self._share < 1 and test not in _COPIED_ONLY:
            events = calls * self._share * min(1.0, common + size)
            live.append(live_batch(self._share, calls, [(1.0, events)], [(1.0, calls * (1 - self._share) * common)]))
        return Step(0, live, pairs)


def _least(holds: Callable[[float], bool], most: float) -> float | None:
    """Return the least x up to `most` for which `holds`, which then holds for all above; None where it never does."""
    if most <= 0 or not holds(most):
        return None
    low, high = 0.0, most
    for _ in range(12):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
