"""What came of comparing a version with the one whose place it is to take, and that in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from marway.errors import ReleaseRefused
from marway.stored import Frozen

__all__ = ["Comparison", "FieldChange", "Method", "comparison_lines", "field_change", "refusal", "remarks"]

Method = Literal["pod", "stored"]
"""A pod asked both versions, or their published golden answers were compared, and nothing was run."""

_SLOWER: Final = 1.5
_SLOWER_S: Final = 0.005
_SHOWN: Final = 3


class FieldChange(Frozen):
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


class Comparison(Frozen):
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


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return a comparison as people read it, a line for each thing."""
    if comparison.not_compared is not None:
        return [f"not compared: {comparison.not_compared}"]
    return [_head(comparison), *(f"  {name:<9}{text}" for name, text in _facts(comparison))]


def remarks(comparison: Comparison) -> list[str]:
    """Return what somebody who releases a version should know of its comparison; nothing where it is as before."""
    if comparison.not_compared is not None:
        return comparison_lines(comparison)
    as_before = comparison.equal == comparison.compared or comparison.base is None
    if as_before and not (comparison.slower or comparison.notes or comparison.refused):
        return []
    facts = "; ".join(f"{name} {text}" for name, text in _facts(comparison))
    return [f"{_head(comparison)} {facts}"]


def refusal(comparison: Comparison, *, model: str, label: str) -> ReleaseRefused:
    """Return the error of a release that this comparison forbids."""
    if comparison.base is None:
        what, stays = "is not released", f"{label} is not set"
    else:
        what, stays = f"may not take the place of {comparison.base}", f"{label} stays at {comparison.base}"
    return ReleaseRefused(
        f"{model} {comparison.version} {what}: {'; '.join(comparison.refused)}; {stays}; if that is meant, release it "
        "with --force",
        comparison=comparison,
        model=model,
        version=comparison.version,
    )


def field_change(change: FieldChange) -> str:
    """Return in words what became of a field."""
    name = change.field or "the answer"
    if change.change == "renamed":
        return f"{name} is now {change.to}"
    if change.change == "added":
        return f"{name} ({change.after}) is new"
    if change.change == "removed":
        return f"{name} ({change.before}) is gone" if change.after is None else f"{name} is not in every answer"
    return f"{name} was {change.before} and is {change.after}"


def _head(comparison: Comparison) -> str:
    if comparison.pod == "gateway":  # of graphs, which no pod has
        by = "by the gateway"
    elif comparison.pod is not None:
        by = f"by pod {comparison.pod}"
    else:
        by = "by published golden answers, nothing was run"
    inputs = f"{comparison.compared} golden input{'s' * (comparison.compared != 1)} of {comparison.inputs_of}"
    if comparison.base is None:
        return f"looked at {comparison.version} {by}, {inputs}:"
    return f"compared {comparison.version} with {comparison.base} {by}, {inputs}:"


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    alone = comparison.base is None
    found: list[tuple[str, str]] = []
    if not alone:
        fields = "; ".join(field_change(each) for each in comparison.fields)
        same = "the same, of the same types" if comparison.both_answered else "not compared: both answered no input"
        found.append(("fields", fields or same))
        equal = f"{comparison.equal} of {comparison.compared} equal"
        found.append(("answers", _with(equal, comparison.differences)))
    errors = f"{comparison.errors}" + ("" if alone else f", before {comparison.base_errors}")
    found.append(("errors", _with(errors, comparison.failures)))
    if comparison.nonfinite or comparison.base_nonfinite:
        before = "" if alone else f", before {comparison.base_nonfinite}"
        count = f"{comparison.nonfinite} hold NaN or an infinity{before}"
        found.append(("finite", _with(count, comparison.nonfinite_at)))
    else:
        found.append(("finite", "all" if comparison.compared > comparison.errors else "no answers"))
    if comparison.p50_s is not None or comparison.base_p50_s is not None:
        p50 = _time(comparison.p50_s) + ("" if alone else f", before {_time(comparison.base_p50_s)}")
        found.append(("p50", f"{p50}: SLOWER" if comparison.slower else p50))
    found += [("note", note) for note in comparison.notes]
    return found


def _with(text: str, lines: Sequence[str]) -> str:
    shown = "; ".join(lines[:_SHOWN])
    return f"{text} ({shown}{'; …' if len(lines) > _SHOWN else ''})" if shown else text


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
