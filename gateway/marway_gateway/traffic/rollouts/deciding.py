"""What is to be done about a rollout, by what is known of it: a pure function, the same in every gateway.

Nothing here asks a clock: time in a step is what processes watched it for, by clocks that do not jump.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from marway.traffic import Traffic
from marway.wire.rollouts import GuardEvidence
from marway_gateway.traffic.evidence.judging import tolerated
from marway_gateway.traffic.evidence.planning import least_s
from marway_gateway.traffic.rollouts.running import Failure

__all__ = ["Decision", "decide"]


class Decision(NamedTuple):
    """What to do, and why.

    Attributes:
        action: Roll back, go to the next step, promote, or have a person look.
        guard: Which guard decided; None where none alone did.
        reason: Why, in words for its history.
    """

    action: Literal["roll_back", "step", "promote", "pause"]
    guard: str | None
    reason: str


def decide(
    traffic: Traffic, evidence: Mapping[str, GuardEvidence], step_s: float, failure: Failure | None = None
) -> Decision | None:
    """Return what is to be done now, or None while it is to go on as it does.

    A candidate that is worse is rolled back while it is paused, too: callers still get its answers.

    Args:
        traffic: The rollout's state.
        evidence: How each guard stands.
        step_s: How long the step was watched, in seconds.
        failure: What ends it whatever was counted.
    """
    if traffic.rollout is None or traffic.candidate is None:
        return None
    if failure is not None:
        return Decision("roll_back", *failure)
    worse = [name for name, each in evidence.items() if each.verdict == "worse"]
    if worse:
        return Decision("roll_back", worse[0], "; ".join(_in_words(name, evidence[name]) for name in worse))
    if traffic.status != "running" or traffic.policy != "steps":
        return None  # a person is to say how it goes on; or its percent follows scores, until a person ends it
    unclear = [name for name, each in evidence.items() if each.verdict == "unclear"]
    if evidence and not unclear:
        if step_s < least_s(traffic.step_time_s):
            return None
        after = traffic.step + 1
        if after >= len(traffic.steps) or traffic.steps[after] >= 100:
            return Decision("promote", None, f"no guard found it worse at {traffic.percent:g} %")
        return Decision("step", None, f"no guard found it worse at {traffic.percent:g} %")
    if step_s >= traffic.step_time_s:
        return Decision("pause", None, _unclear(evidence, unclear))
    return None


def _in_words(name: str, found: GuardEvidence) -> str:
    estimate = "" if found.estimate is None else f": {found.estimate:+.4g}, allowed {tolerated(name, found.limit):g}"
    counts = ", ".join(f"{what} {count:g}" for what, count in found.counts.items())
    return f"{name} is worse{estimate}" + (f" ({counts})" if counts else "")


def _unclear(evidence: Mapping[str, GuardEvidence], unclear: Iterable[str]) -> str:
    missing = [f"{name} ({evidence[name].missing or 'not enough answers yet'})" for name in unclear]
    return "the step's time is over and it is unclear: " + ("; ".join(missing) or "nothing was judged")
