"""One bar of parts, such as a pod's memory by version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

__all__ = ["Part", "part_bar"]

_LOOKS: Final = 8
"""Looks that `console.css` has for parts; they repeat."""


class Part(NamedTuple):
    """A part of a bar: its name, how much it is, and how much in words. A `kind` has a look in `console.css`."""

    name: str
    value: float
    text: str
    kind: str = ""


def part_bar(parts: Sequence[Part], *, total: float | None, title: str, total_text: str | None = None) -> Markup:
    """Return one bar, as long as ``total``, of which each part takes its share.

    Args:
        parts: From left to right.
        total: How much there is in all; None, or less than the parts take, stands for what they take.
        title: What it shows.
        total_text: The total in words.
    """
    taken = sum(max(0.0, part.value) for part in parts)
    whole = max(taken, total or 0.0) or 1.0
    at, drawn = 0.0, Markup("")
    for number, part in enumerate(parts):
        width = 100 * max(0.0, part.value) / whole
        kind = part.kind or f"part-{number % _LOOKS + 1}"
        drawn += Markup(
            '<rect class="part {}" x="{}" y="0" width="{}" height="12"><title>{}: {}</title></rect>'
        ).format(kind, f"{at:.2f}", f"{width:.2f}", part.name, part.text)
        at += width
    says = f"{title}: " + (", ".join(f"{part.name} {part.text}" for part in parts if part.value) or "nothing")
    if total_text is not None:
        says += f", of {total_text}"
    return Markup(
        '<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="room" x="0" y="0" width="100" height="12"/>{}</svg>'
    ).format(says, drawn)
