"""What came of sending kept inputs of callers to two versions: a replay, as it is printed and as its proof has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from marway.stored import Frozen

__all__ = ["REPLAY_LIMITS", "Replay", "ReplayCounts", "ReplayExample", "ReplaySegment", "ReplaySide", "ReplaySlow"]

REPLAY_LIMITS: Final[Mapping[str, float]] = {"errors": 0.01, "finite": 0.005, "shape": 0.01, "disagreement": 0.1}
"""By guard, in what part of the inputs a candidate may do worse than the base: the limits that rollouts have."""

Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class ReplayCounts(Frozen):
    """How two versions answered the same inputs. All are numbers of inputs.

    Attributes:
        compared: That both versions were asked.
        equal: Whose answers are the same, within the tolerance of the base's golden answers.
        agree: Whose answers decide the same: label, class with the highest score, whole number, text.
        failed: That the candidate failed and the base did not.
        base_failed: That the base failed and the candidate did not.
        both_failed: That both failed.
        nonfinite: Of the candidate's answers, which hold NaN or an infinity where the base's do not.
        base_nonfinite: The same the other way round.
        shape: Whose answers have other fields or types, or another content type.
    """

    compared: Count = 0
    equal: Count = 0
    agree: Count = 0
    failed: Count = 0
    base_failed: Count = 0
    both_failed: Count = 0
    nonfinite: Count = 0
    base_nonfinite: Count = 0
    shape: Count = 0


class ReplaySegment(Frozen):
    """The inputs for which a JMESPath found the same value; None for those where it found none."""

    value: str | None
    counts: ReplayCounts


class ReplaySide(Frozen):
    """How long one version's answers took in its model server, in seconds; None where that is not known."""

    version: str
    p50_s: float | None = None
    p99_s: float | None = None


class ReplaySlow(Frozen):
    """One of the inputs that the candidate took longest for, in seconds; None where that is not known."""

    prediction_id: str
    base_s: float | None
    candidate_s: float


class ReplayExample(Frozen):
    """An input that was answered otherwise: whose, and how.

    Attributes:
        prediction_id: The prediction that it was kept of.
        kind: The gravest of its differences: failed, nonfinite, shape, decision or value.
        segment: Of which segment it is.
        difference: In one line; None in what is stored, as an answer may say what its caller sent.
    """

    prediction_id: str
    kind: str
    segment: str | None = None
    difference: str | None = None


class Replay(Frozen):
    """One replay. Lists are cut; the counts are not.

    Attributes:
        model: The model.
        base: The version that the candidate is compared with.
        candidate: The version that is tried.
        label: Whose callers' inputs they are; None where they are those that the base answered.
        since: When the oldest of the predictions ended whose inputs were sent.
        until: When the newest did.
        inputs: How many were chosen.
        skipped: How many of them could not be sent or answered, by why.
        counts: What came of all others.
        fields: By field of the answers, for how many inputs it differs; the most frequent ones.
        segment: The JMESPath that says of which segment an input is, or None.
        segments: The largest segments.
        sides: How long base and candidate took.
        slowest: What the candidate took longest for.
        examples: Some inputs that were answered otherwise, the gravest first.
        redacted: Fields that are taken out of what is kept: the versions were asked without them.
        limits: By guard, which part of the inputs may be worse.
        breaches: Which limits are breached, in words; none means that it passed.
        broken_off: Why it ended before all inputs were sent; None where it did not.
        duration_s: How long it took.
    """

    model: str
    base: str
    candidate: str
    label: str | None = None
    since: datetime
    until: datetime
    inputs: Count
    skipped: Mapping[str, int] = Field(default_factory=dict)
    counts: ReplayCounts = ReplayCounts()
    fields: Mapping[str, int] = Field(default_factory=dict)
    segment: str | None = None
    segments: tuple[ReplaySegment, ...] = ()
    sides: tuple[ReplaySide, ...] = ()
    slowest: tuple[ReplaySlow, ...] = ()
    examples: tuple[ReplayExample, ...] = ()
    redacted: tuple[str, ...] = ()
    limits: Mapping[str, Fraction] = Field(default_factory=dict)
    breaches: tuple[str, ...] = ()
    broken_off: str | None = None
    duration_s: Annotated[float, Field(ge=0)] = 0.0

    @property
    def passed(self) -> bool:
        """Whether it went to its end, compared something, and breaches no limit."""
        return self.broken_off is None and self.counts.compared > 0 and not self.breaches

    def stored(self) -> Replay:
        """Return what may be kept for longer than callers' inputs are: no answers, and no segments of single inputs."""
        bare = (each.model_copy(update={"segment": None, "difference": None}) for each in self.examples)
        return self.model_copy(update={"examples": tuple(bare)})

    @property
    def summary(self) -> str:
        """What came of it, in one line."""
        counts = self.counts
        found = f"{counts.agree} of {counts.compared} inputs decided as by {self.base}, {counts.failed} failed"
        return f"{found}; " + ("; ".join(self.breaches) or "within all limits")
