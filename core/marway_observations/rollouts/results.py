"""What a look at the feedback on a rollout's answers found: counts, from which all gateways judge alike.

A prediction's loss is a number from 0 (as good as can be) to 1, in eighths: whether a class is wrong, how far a number
is from the true one, how much a score lacks to the best one. What lies between two eighths is rounded to one of them by
a draw that its request decides, with chances such that the mean is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field

from marway.registry.keys import rollout_prefix
from marway.stored import Frozen

__all__ = ["PARTS", "Asked", "Comparison", "Look", "Looked", "RolloutQuality", "StepCounts", "Trouble", "quality_key"]

PARTS: Final = 8
"""Losses are counted in so many parts of 1."""
Count = Annotated[int, Field(ge=0)]
Counts = Mapping[int, Count]


def quality_key(model: str, rollout: str) -> str:
    """Return where what feedback says of a rollout is."""
    return f"{rollout_prefix(model, rollout)}quality.json"


class StepCounts(Frozen):
    """Losses of predictions whose truth is known, of a time in which requests were divided alike.

    Attributes:
        step: The rollout's step.
        share: The part of the label's requests that the candidate answered, from 0 to 1.
        pairs: Of requests that the base answered and the candidate got a copy of: how many have which difference of the
            candidate's loss and the base's, in eighths, from -8 (the base alone is wrong) to 8 (the candidate alone).
        base, candidate: Of answers that callers got: how many have which loss, from 0 to 8.
        base_answers, candidate_answers: How many answers callers got in that time, their truth known or not.
    """

    step: Count
    share: Annotated[float, Field(ge=0, le=1)]
    pairs: Counts = Field(default_factory=dict)
    base: Counts = Field(default_factory=dict)
    candidate: Counts = Field(default_factory=dict)
    base_answers: Count = 0
    candidate_answers: Count = 0

    @property
    def divided(self) -> bool:
        """Whether there are as many answers of the candidate as its share says.

        Where no pod has it ready the base answers, and those who asked then were not divided by chance; and of two
        versions with different `observe_rate` other parts are kept. So few that it is not seen (three standard
        deviations) are too few to matter beside the uncertainty of the losses.
        """
        answers = self.base_answers + self.candidate_answers
        spread = sqrt(answers * self.share * (1 - self.share))
        return 0 < self.share < 1 and abs(self.candidate_answers - answers * self.share) <= 3 * spread


class Comparison(Frozen):
    """What one rule says.

    Attributes:
        metric: Which of the declared figures it goes by.
        kind: What is compared: `classification`, `regression`, `score` or `correct`.
        scale: For numbers: how far from the true one counts as a loss of 1; decided by the base's first errors, and
            the same from then on. None where there is no need, or too few are known yet.
        steps: The counts.
        left_out: Predictions of either that do not count, by the reason.
    """

    metric: str
    kind: Literal["classification", "regression", "score", "correct"]
    scale: float | None = None
    steps: tuple[StepCounts, ...] = ()
    left_out: Mapping[str, Count] = Field(default_factory=dict)


class RolloutQuality(Frozen):
    """`rollouts/<model>/<rollout>/quality.json`, written over by compare-and-swap.

    Attributes:
        at: When it was looked.
        guard: What the guard `quality` goes by; None where no rule that it can go by is declared.
        reward: What the policy `thompson` goes by; None where that is not the rollout's.
        breached: Why the candidate must go whatever the counts say: a declared bound that its answers in this rollout
            surely breach, and the base's do not.
        missing: Why there is no `guard`.
    """

    format: Literal[1] = 1
    at: AwareDatetime
    guard: Comparison | None = None
    reward: Comparison | None = None
    breached: str | None = None
    missing: str | None = None


class Asked(Frozen):
    """Which rollout is to be looked at."""

    model: str
    label: str
    rollout: str


class Look(Frozen):
    """A line that the process reads: what it is to look at."""

    rollouts: tuple[Asked, ...]


class Trouble(Frozen):
    """A rollout that could not be looked at, and why."""

    model: str
    why: str


class Looked(Frozen):
    """A line that the process writes: what it found.

    Attributes:
        cpu_s: What it took of processors, in seconds.
        found: What was found, by the rollout.
        troubles: What could not be looked at.
    """

    cpu_s: Annotated[float, Field(ge=0)]
    found: Mapping[str, RolloutQuality] = Field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
