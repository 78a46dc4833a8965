"""Plots as SVG, made here: lines over time, and one bar of parts. No script, no style of their own, and a table beside.

Colours, widths and dashes are classes of `console.css`, so that dark mode and the console's content security policy
hold; which line is which says its dash as well as its colour.
"""

from marway_gateway.console.plots.axes import BYTES, COUNT, DURATION, MILLISECONDS, PERCENT, TIME, Axis, unit_bytes
from marway_gateway.console.plots.bars import Part, part_bar
from marway_gateway.console.plots.lines import line_plot
from marway_gateway.console.plots.points import Line, Point

__all__ = [
    "BYTES",
    "COUNT",
    "DURATION",
    "MILLISECONDS",
    "PERCENT",
    "TIME",
    "Axis",
    "Line",
    "Part",
    "Point",
    "line_plot",
    "part_bar",
    "unit_bytes",
]
