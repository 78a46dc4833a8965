"""What a rollout will do, and what it would notice, told before it is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from marway.stored import Frozen

__all__ = ["GuardPlan", "RolloutPlan", "StepPlan"]


class GuardPlan(Frozen):
    """What a guard would do in a rollout, at the present rate of requests.

    Attributes:
        limit: How much worse the candidate may be.
        passes_after_s: When a candidate as good as its base is known to be not worse, in seconds; None for never within
            the rollout's time.
        smallest: The smallest change that is found within the first step's time; None where none is.
        found: How soon changes are found: seconds by the size of the change.
        note: What it needs, or does not notice.
    """

    limit: float
    passes_after_s: float | None = None
    smallest: float | None = None
    found: Mapping[str, float] = Field(default_factory=dict)
    note: str | None = None


class StepPlan(Frozen):
    """One step of a rollout.

    Attributes:
        percent: How many requests in a hundred the candidate answers.
        at_least_s: How long it lasts, however good the candidate looks.
        expected_s: How long it lasts where the candidate is as good as its base; None where its time ends first, and a
            person has to look.
    """

    percent: float
    at_least_s: float
    expected_s: float | None = None


class RolloutPlan(Frozen):
    """What a rollout will do, and what it would notice, told before it is started.

    Attributes:
        steps: One after the other; at 100 the label moves.
        step_time_s: How long a step may take.
        guards: What is watched.
        rate_per_s: How many requests of the label a second this was worked out for.
        shadow_percent: How many of the base's answers are compared with the candidate's.
        alpha: Bound for the probability that a candidate no worse than the base is rolled back.
        expected_s: How long it takes for a good candidate; None where it will need a person.
        notes: What else there is to say, a sentence each.
        policy: `steps`, or `thompson`: there is one step, the percent that it starts with.
    """

    steps: tuple[StepPlan, ...]
    step_time_s: float
    guards: Mapping[str, GuardPlan]
    rate_per_s: float
    shadow_percent: float
    alpha: float
    expected_s: float | None = None
    notes: tuple[str, ...] = ()
    policy: Literal["steps", "thompson"] = "steps"
