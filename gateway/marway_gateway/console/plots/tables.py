"""The numbers of a plot as a table, for whoever does not see it, or wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from marway_gateway.console.plots.axes import Axis
from marway_gateway.console.plots.points import Line, Point

__all__ = ["table_of"]

_ROWS_MAX: Final = 40
"""Rows of the table beside a plot; of more points so many are shown, at even distances and with the last."""


def table_of(lines: Sequence[Line], x: Axis, y: Axis, title: str, key: str | None) -> Markup:
    """Return the numbers of a plot for whoever does not see it: a row for each place that any line has a point at."""
    by_place: dict[float, dict[int, Point]] = {}
    for number, line in enumerate(lines):
        for point in line.points:
            by_place.setdefault(point.x, {})[number] = point
    rows = sorted(by_place.items())
    if len(rows) > _ROWS_MAX:
        every = (len(rows) - 1) / (_ROWS_MAX - 1)
        rows = [rows[round(index * every)] for index in range(_ROWS_MAX)]

    def cell(point: Point | None) -> str:
        if point is None or point.y is None:
            return "–"
        known = point.low is not None and point.high is not None
        return y.text(point.y) + (f" ({y.text(point.low or 0.0)} to {y.text(point.high or 0.0)})" if known else "")

    names = (x.label, *(line.name for line in lines))
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in names)
    body = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            x.text(place),
            Markup("").join(Markup("<td>{}</td>").format(cell(found.get(number))) for number in range(len(lines))),
        )
        for place, found in rows
    )
    named = Markup(' id="{}"').format(key) if key else ""
    return Markup(
        '<details class="plot-table"{}><summary>The numbers<span class="hidden"> of {}</span></summary>'
        '<div class="scroll" tabindex="0" role="region" aria-label="The numbers of {}"><table>'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div></details>"
    ).format(named, title, title, head, body)
