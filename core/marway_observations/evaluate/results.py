"""What an evaluation found: one JSON document, from the process that evaluates to the gateway that started it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, Field

from marway.stored import Frozen

__all__ = ["Drift", "Evaluation", "Kind", "Quality", "Standing", "Trouble", "Unjudged", "subjects_of"]

Kind: TypeAlias = Literal["quality", "drift"]
Standing: TypeAlias = Literal["met", "breached", "unclear", "too_few", "no_bound"]
"""How a figure stands to its bound. `unclear`: on the wrong side or not, its uncertainty leaves it open."""
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def subjects_of(kind: Kind, version: str) -> str:
    """Return what the subjects of a version's results begin with."""
    return f"{kind}/{version}/"


class Quality(Frozen):
    """How good a version's answers were by one rule: of all of them, and of those that each label led to.

    Attributes:
        label: Only answers of the version that this label led to; None means all of the version's.
        metric: Which figure.
        window: How far back predictions count, such as `7d`.
        known: Predictions whose truth is known, of which the figure is made.
        missing: Predictions whose truth has not come (yet).
        unusable: Predictions whose truth has come and that cannot be compared with it: how many, by the reason.
        value: The figure; None where there is none.
        lower, upper: Its 95 % confidence interval.
        minimum, maximum: What it must keep to; None means no bound.
        min_count: Truths there must be before it is judged.
    """

    model: str
    version: str
    label: str | None
    metric: str
    window: str
    known: Count
    missing: Count
    unusable: Mapping[str, Count] = Field(default_factory=dict)
    value: Finite | None
    lower: Finite | None
    upper: Finite | None
    minimum: float | None
    maximum: float | None
    min_count: Count

    @property
    def subject(self) -> str:
        """What is judged, within the model."""
        return f"{subjects_of('quality', self.version)}{self.label or ''}/{self.metric}"

    @property
    def standing(self) -> Standing:
        """How it stands to its bounds.

        Breached means that the whole interval is on the wrong side: an event says that it is so, not that it may be.
        Met means that the figure itself is on the right side. Between the two it is unclear, and whatever was the case
        before goes on; so a figure that moves about its bound raises one event, not one a look.
        """
        if self.minimum is None and self.maximum is None:
            return "no_bound"
        if self.known < self.min_count or self.value is None:
            return "too_few"
        lower = self.value if self.lower is None else self.lower
        upper = self.value if self.upper is None else self.upper
        if (self.minimum is not None and upper < self.minimum) or (self.maximum is not None and lower > self.maximum):
            return "breached"
        below = self.minimum is not None and self.value < self.minimum
        above = self.maximum is not None and self.value > self.maximum
        return "unclear" if below or above else "met"


class Drift(Frozen):
    """How far a field of a version's inputs or outputs is from what it is compared with.

    Attributes:
        field: Which, such as `input.age`.
        against: What with: `training`, `golden`, or the age of an earlier window, such as `7d`.
        window: How far back predictions were looked at.
        count: Predictions that were looked at.
        psi: Population stability index.
        ks: Kolmogorov-Smirnov's distance, from 0 to 1; None for what has no order.
        psi_maximum: From which psi on the field has drifted, if it is more than chance.
        drifted: Whether it has.
    """

    model: str
    version: str
    field: str
    against: str
    window: str
    count: Count
    psi: Finite
    ks: Finite | None
    psi_maximum: float
    drifted: bool

    @property
    def subject(self) -> str:
        """What is judged, within the model."""
        return f"{subjects_of('drift', self.version)}{self.field}"

    @property
    def standing(self) -> Standing:
        """How it stands to its bound; from three quarters of it on it is unclear, so that it is not crossed each hour.

        A change of what is counted each time moves the index a little, also where nothing drifts.
        """
        if self.drifted:
            return "breached"
        return "unclear" if self.psi >= 0.75 * self.psi_maximum else "met"


class Unjudged(Frozen):
    """A version of which nothing can be said now, and why: what was the case before goes on."""

    model: str
    version: str
    why: str


class Trouble(Frozen):
    """A model that could not be evaluated, and why."""

    model: str
    why: str


class Evaluation(Frozen):
    """What was found, of all models.

    Attributes:
        at: When it began.
        cpu_s: What it took of processors, in seconds, with the start of its process.
        rules: Rules that were looked at: none means that no version has any.
        quality, drift: What was found.
        unjudged: The versions of which nothing can be said.
        troubles: The models that could not be evaluated.
    """

    at: AwareDatetime
    cpu_s: Annotated[float, Field(ge=0)]
    rules: Count
    quality: tuple[Quality, ...] = ()
    drift: tuple[Drift, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()
    troubles: tuple[Trouble, ...] = ()
