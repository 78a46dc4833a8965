"""What a look at drift has found."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from marway.stored import Frozen

__all__ = ["DriftResult", "FieldDrift", "Status"]

Status = Literal["drifted", "steady", "too_few", "no_bodies", "no_reference"]
"""`drifted`: a field has; `steady`: none has; the others: nothing can be said, and ``reason`` says why."""


class FieldDrift(Frozen):
    """One field, and how far its values have moved from the reference's.

    Attributes:
        field: What it is called, such as `input.age` or `length(input.text)`.
        kind: number, category or words.
        psi: Population stability index.
        p_value: How likely a shift as large is by chance alone (Pearson's test of homogeneity).
        drifted: Whether it is at least as large as the rule allows, and more than chance.
        ks: Of numbers: the largest distance of the two cumulative distributions, 0 to 1.
        ks_p_value: How likely such a distance is by chance alone.
        missing: The part of the rows that has no value, or one of another kind.
        reference_missing: The same of the reference.
        rows: Rows that were looked at.
        reference_rows: Rows of the reference.
        change: What changed most, for people.
    """

    field: str
    kind: str
    psi: float
    p_value: float
    drifted: bool
    ks: float | None = None
    ks_p_value: float | None = None
    missing: float
    reference_missing: float
    rows: int
    reference_rows: int
    change: str = ""


class DriftResult(Frozen):
    """A version, and how far its inputs and outputs have moved.

    Attributes:
        model: Its model.
        version: It.
        against: With what it was compared: training, golden, or a time such as 7d.
        since: When the window that was looked at begins, and ``until`` where it ends.
        until: Its end; not part of it.
        predictions: Predictions of the version in the window that were kept.
        rows: How many of them were looked at: those whose bodies were kept and could be read, or a sample of these.
        unreadable: How many of the sample had an input or an answer that could not be read.
        left_out: Files of observations in the window that could not be read, and why.
        psi_maximum: From which index on a field has drifted.
        status: What was found.
        reason: Why nothing can be said, and what to do about it; empty where something can.
        fields: Those that were compared, the farthest first.
        new_fields: Fields that the reference did not have.
        cut: Whether there were more fields than are looked at.
    """

    model: str
    version: str
    against: str
    since: datetime
    until: datetime
    predictions: int = 0
    rows: int = 0
    unreadable: int = 0
    left_out: tuple[str, ...] = ()
    psi_maximum: float
    status: Status
    reason: str = ""
    fields: tuple[FieldDrift, ...] = ()
    new_fields: tuple[str, ...] = ()
    cut: bool = False
