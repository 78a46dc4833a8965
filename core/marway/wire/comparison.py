"""What came of comparing a version with the one whose place it is to take."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Comparison", "FieldChange", "Method"]

Method = Literal["pod", "stored"]
"""A pod asked both versions, or their published golden answers were compared, and nothing was run."""

_SLOWER: Final = 1.5
_SLOWER_S: Final = 0.005


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class FieldChange(_Wire):
    """A field of the answers that is not what it was.

    Attributes:
        field: Where it is, such as `scores[].label`; empty for the answer itself.
        change: What became of it; `type` says that it has a type that it never had before.
        before, after: Its types; None on the side that does not have it.
        to: Its new name, where it was renamed.
    """

    field: str
    change: Literal["added", "removed", "renamed", "type"]
    before: str | None = None
    after: str | None = None
    to: str | None = None


class Comparison(_Wire):
    """A version's answers beside those of the version that a label points at (`base`), to the same golden inputs.

    Times are seconds. Lists of lines and of fields are cut; the counts are not.

    Attributes:
        version: The version that was looked at.
        base: The one it was compared with; None where there is none, and its own answers were looked at.
        pod: Which pod.
        not_compared: Why nothing was compared; None where it was.
        inputs_of: Whose golden inputs were used.
        inputs: How many there are.
        compared: How many were compared.
        equal: How many were answered as by the base, within the tolerance of its golden answers.
        differences: A line for each that was answered otherwise.
        both_answered: How many inputs neither failed: it is their answers whose fields were compared.
        fields: What changed about the fields of the answers and their types.
        errors, base_errors: How many inputs each failed to answer.
        failures: A line for each input that fails now and did not before.
        nonfinite, base_nonfinite: How many answers of each held NaN or an infinity.
        nonfinite_at: A line for each that holds one now and did not before.
        p50_s, base_p50_s: The median time of an answer on the pod, both asked in turns; None where it was not measured.
        notes: What the comparison could not do, and did otherwise.
        refused: Why the version may not take the base's place unless it is forced; none if it may.
    """

    version: str
    base: str | None = None
    method: Method = "pod"
    pod: str | None = None
    not_compared: str | None = None
    inputs_of: str | None = None
    inputs: int = 0
    compared: int = 0
    equal: int = 0
    differences: tuple[str, ...] = ()
    both_answered: int = 0
    fields: tuple[FieldChange, ...] = ()
    errors: int = 0
    base_errors: int = 0
    failures: tuple[str, ...] = ()
    nonfinite: int = 0
    base_nonfinite: int = 0
    nonfinite_at: tuple[str, ...] = ()
    p50_s: float | None = None
    base_p50_s: float | None = None
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Whether it takes half as long again as the base, and 5 ms more."""
        if self.p50_s is None or self.base_p50_s is None:
            return False
        return self.p50_s > _SLOWER * self.base_p50_s and self.p50_s - self.base_p50_s > _SLOWER_S
