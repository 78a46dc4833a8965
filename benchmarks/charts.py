"""Small charts as SVG: horizontal bars, each of one or more parts. Written by hand, for that is all there is to draw.

A plotting library would be the largest dependency of the project, for two hundred rectangles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABEL, _BAR = 760, 220, 430
_ROW, _THICK, _TITLE = 20, 13, 26
_COLOURS = ("#2a6f97", "#f4a261", "#84a98c", "#c1666b", "#8d86c9", "#d4a373", "#577590")
_GREY = "#9aa5b1"


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its parts by what they are, what is written at its end, and whether it stands out."""

    label: str
    parts: Mapping[str, float]
    said: str
    ours: bool = False


def bars(title: str, groups: Mapping[str, Sequence[Bar]], *, legend: bool = False) -> str:
    """Return an SVG of groups of bars; each group has a scale of its own, from 0 to its longest bar.

    Args:
        title: Above everything, with the unit.
        groups: Bars by a group's heading, which may be empty.
        legend: Whether to name the parts by their colours; else what stands out has a colour and the rest is grey.
    """
    names = list(dict.fromkeys(name for group in groups.values() for bar in group for name in bar.parts))
    y = _TITLE
    body = [_text(8, 18, title, weight="bold")]
    if legend:
        x = 8
        for number, name in enumerate(names):
            body.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{_colour(number)}"/>')
            body.append(_text(x + 14, y + 9, name))
            x += 30 + 7 * len(name)
        y += _ROW
    for heading, group in groups.items():
        if heading:
            body.append(_text(8, y + 14, heading, weight="bold"))
            y += _ROW
        most = max((sum(bar.parts.values()) for bar in group), default=0.0) or 1.0
        for bar in group:
            body.append(_text(_LABEL - 6, y + 11, bar.label, anchor="end"))
            x = float(_LABEL)
            for name, value in bar.parts.items():
                width = max(0.0, value) / most * _BAR
                fill = _colour(names.index(name)) if legend else _COLOURS[0] if bar.ours else _GREY
                body.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_THICK}" fill="{fill}"/>')
                x += width
            body.append(_text(x + 5, y + 11, bar.said))
            y += _ROW
        y += 6
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )
    ground = f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *body, "</svg>", ""])


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _text(x: float, y: float, text: str, *, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}" text-anchor="{anchor}" fill="#1f2933">'
        f"{escape(text)}</text>"
    )
