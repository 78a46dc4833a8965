"""Makes one finding of what several objects have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from marway.errors import clip
from marway_ops.doctor.findings import Finding

__all__ = ["Case", "findings_of"]

_NAMED: Final = 3


class Case(NamedTuple):
    """One object with a symptom."""

    name: str
    found: str
    advice: str


def findings_of(check: str, level: Literal["warning", "problem"], cases: Iterable[Case]) -> list[Finding]:
    """Return a finding for each thing that was found, with the names of the objects it was found of."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, found, advice in cases:
        grouped.setdefault((found, advice), []).append(name)
    return [
        Finding(check, level, f"{_listed(names)}: {clip(found, 300)}", advice)
        for (found, advice), names in grouped.items()
    ]


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
