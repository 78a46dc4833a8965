"""Lines over time, with what surely is, a limit, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from marway_gateway.console.plots.axes import COUNT, TIME, Axis, ticks
from marway_gateway.console.plots.points import Line, Point
from marway_gateway.console.plots.tables import table_of

__all__ = ["line_plot"]

_WIDTH: Final = 400
_HEIGHT: Final = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 30
_ACROSS: Final = _WIDTH - _LEFT - _RIGHT
_DOWN: Final = _HEIGHT - _TOP - _BOTTOM
_POINTS_MAX: Final = 240
"""Points of a line that are drawn, about two for three pixels: of more, the least and the greatest of each stretch."""
_LINES_MAX: Final = 8
"""Lines that `console.css` tells apart."""


def line_plot(
    lines: Sequence[Line],
    *,
    title: str,
    x: Axis = TIME,
    y: Axis = COUNT,
    limit: float | None = None,
    limit_name: str = "limit",
    ceiling: float | None = None,
    note: str | None = None,
    key: str | None = None,
) -> Markup:
    """Return a `<figure>`: title, plot, what its lines are, and the same numbers as a table.

    Args:
        lines: At most eight.
        title: What is shown; above the plot and read out for it.
        x: The horizontal axis.
        y: The vertical one.
        limit: A value to mark right across.
        limit_name: What that is.
        ceiling: Values above are drawn at it, so that large ones do not hide how small ones differ.
        note: How it is measured, below the title.
        key: Names the figure's table, so that it stays open when the figure is replaced; unique in a page.

    Raises:
        ValueError: There are too many lines to tell apart.
    """
    if len(lines) > _LINES_MAX:
        raise ValueError(f"{len(lines)} lines in one plot cannot be told apart: show {_LINES_MAX}")
    known = [line for line in lines if any(point.y is not None for point in line.points)]
    head = Markup('<figcaption class="plot-title">{}</figcaption>').format(title)
    if note is not None:
        head += Markup('<p class="quiet">{}</p>').format(note)
    if not known:
        return _figure(head + Markup('<p class="quiet">Nothing was counted yet.</p>'))
    frame = _frame(known, limit, ceiling)
    shown = Markup("").join(
        [
            _grid(frame, x, y),
            *(_drawn(number, line, frame) for number, line in enumerate(known, 1)),
            _limit(frame, limit, limit_name) if limit is not None else "",
        ]
    )
    label = "; ".join(f"{line.name}: {_last(line, y)}" for line in known)
    says = f"{title}. Last values: {label}." + (f" {limit_name}: {y.text(limit)}." if limit is not None else "")
    svg = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, says, shown
    )
    return _figure(head + svg + _legend(known, y, limit, limit_name) + table_of(known, x, y, title, key))


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the axes reach over."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return _LEFT + _ACROSS * (value - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        return _TOP + _DOWN * (self.high - min(value, self.high)) / (self.high - self.low)


def _figure(content: Markup) -> Markup:
    return Markup('<figure class="plot-figure">{}</figure>').format(content)


def _frame(lines: Sequence[Line], limit: float | None, ceiling: float | None) -> _Frame:
    points = [point for line in lines for point in line.points]
    values = [each for point in points for each in (point.y, point.low, point.high) if each is not None]
    values += [0.0] if limit is None else [0.0, limit]  # from zero, so that heights can be compared by eye
    low, high = min(values), min(max(values), math.inf if ceiling is None else ceiling)
    if high == low:
        high = low + 1.0
    room = 0.06 * (high - low)
    left, right = min(point.x for point in points), max(point.x for point in points)
    if right == left:
        left, right = left - 1.0, right + 1.0
    return _Frame(left, right, low - (room if low < 0 else 0.0), high + room)


def _grid(frame: _Frame, x: Axis, y: Axis) -> Markup:
    drawn = []
    for value in ticks(frame.low, frame.high, 4, y.steps):
        at = f"{frame.y(value):.1f}"
        drawn.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}" dy="3.5" '
                'text-anchor="end">{}</text>'
            ).format(_LEFT, _WIDTH - _RIGHT, at, at, _LEFT - 5, at, y.text(value))
        )
    for value in ticks(frame.left, frame.right, 4, x.steps):
        place = frame.x(value)
        drawn.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text class="tick" x="{0}" y="{3}" '
                'text-anchor="{4}">{5}</text>'
            ).format(
                f"{place:.1f}",
                _HEIGHT - _BOTTOM,
                _HEIGHT - _BOTTOM + 4,
                _HEIGHT - _BOTTOM + 15,
                "end" if place > _WIDTH - 40 else "middle",
                x.text(value),
            )
        )
    drawn.append(
        Markup('<text class="tick axis" x="{}" y="{}" text-anchor="end">{}</text>').format(
            _WIDTH - _RIGHT, _HEIGHT - 3, x.label
        )
    )
    return Markup("").join(drawn)


def _drawn(number: int, line: Line, frame: _Frame) -> Markup:
    points = _thinned(line.points)
    band = [each for each in points if each.low is not None and each.high is not None]
    drawn = Markup("")
    if len(band) > 1:
        edge = [(each.x, each.high) for each in band] + [(each.x, each.low) for each in reversed(band)]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y or 0.0):.1f}" for x, y in edge)
        drawn += Markup('<polygon class="band line-{}" points="{}"/>').format(number, path)
    path, before = "", None
    alone = []
    for index, point in enumerate(points):
        if point.y is None:
            before = None
            continue
        x, y = f"{frame.x(point.x):.1f}", f"{frame.y(point.y):.1f}"
        if before is None:
            path += f"M{x} {y}"
            if index + 1 == len(points) or points[index + 1].y is None:
                alone.append((x, y))
        else:
            path += f"H{x}V{y}" if line.steps else f"L{x} {y}"
        before = point
    drawn += Markup('<path class="line line-{}" d="{}"><title>{}</title></path>').format(number, path, line.name)
    for x, y in alone:  # a point between two gaps has no line
        drawn += Markup('<circle class="dot line-{}" cx="{}" cy="{}" r="3"><title>{}</title></circle>').format(
            number, x, y, line.name
        )
    return drawn


def _limit(frame: _Frame, limit: float, name: str) -> Markup:
    at = frame.y(limit)
    return Markup(
        '<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick limit-name" x="{}" y="{}" '
        'text-anchor="end">{}</text>'
    ).format(_LEFT, _WIDTH - _RIGHT, f"{at:.1f}", f"{at:.1f}", _WIDTH - _RIGHT - 2, f"{at - 4:.1f}", name)


def _last(line: Line, y: Axis) -> str:
    found = [point.y for point in line.points if point.y is not None]
    return y.text(found[-1])


def _legend(lines: Sequence[Line], y: Axis, limit: float | None, limit_name: str) -> Markup:
    def item(kind: str, name: str, value: str) -> Markup:
        return Markup(
            '<li><svg class="sample" viewBox="0 0 24 8" aria-hidden="true"><line class="{}" x1="0" x2="24" y1="4" '
            'y2="4"/></svg> {} <strong>{}</strong></li>'
        ).format(kind, name, value)

    items = [item(f"line line-{number}", line.name, _last(line, y)) for number, line in enumerate(lines, 1)]
    if limit is not None:
        items.append(item("limit", limit_name, y.text(limit)))
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Return the points to draw: of many, the first, the least, the greatest and the last of each stretch."""
    if len(points) <= _POINTS_MAX:
        return points
    stretches = _POINTS_MAX // 4
    kept: list[Point] = []
    for number in range(stretches):
        stretch = points[len(points) * number // stretches : len(points) * (number + 1) // stretches]
        values = [each for each in stretch if each.y is not None]
        chosen = {id(stretch[0]), id(stretch[-1])}
        if values:
            chosen |= {id(min(values, key=lambda each: each.y or 0.0)), id(max(values, key=lambda each: each.y or 0.0))}
        kept += [each for each in stretch if id(each) in chosen]
    return kept
