"""A comparison of two versions in words, and what a release makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from marway.errors import ReleaseRefused
from marway.wire.comparison import Comparison, FieldChange

__all__ = ["comparison_lines", "field_change", "refusal", "remarks"]

_SHOWN = 3


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return a comparison as people read it, a line for each thing."""
    if comparison.not_compared is not None:
        return [f"not compared: {comparison.not_compared}"]
    return [_head(comparison), *(f"  {name:<9}{said}" for name, said in _facts(comparison))]


def remarks(comparison: Comparison) -> list[str]:
    """Return what somebody who releases a version should know of its comparison; nothing where it is as before."""
    if comparison.not_compared is not None:
        return comparison_lines(comparison)
    as_before = comparison.equal == comparison.compared or comparison.base is None
    if as_before and not (comparison.slower or comparison.notes or comparison.refused):
        return []
    said = "; ".join(f"{name} {text}" for name, text in _facts(comparison))
    return [f"{_head(comparison)} {said}"]


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
    by = f"by pod {comparison.pod}" if comparison.pod is not None else "by published golden answers, nothing was run"
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
        said = f"{comparison.nonfinite} hold NaN or an infinity{before}"
        found.append(("finite", _with(said, comparison.nonfinite_at)))
    else:
        found.append(("finite", "all" if comparison.compared > comparison.errors else "no answers"))
    if comparison.p50_s is not None or comparison.base_p50_s is not None:
        p50 = _time(comparison.p50_s) + ("" if alone else f", before {_time(comparison.base_p50_s)}")
        found.append(("p50", f"{p50}: SLOWER" if comparison.slower else p50))
    found += [("note", note) for note in comparison.notes]
    return found


def _with(said: str, lines: Sequence[str]) -> str:
    shown = "; ".join(lines[:_SHOWN])
    return f"{said} ({shown}{'; …' if len(lines) > _SHOWN else ''})" if shown else said


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
