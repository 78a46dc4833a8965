"""Plots of the console."""

import re
from xml.etree import ElementTree

import pytest

from marway_gateway.console.plots import BYTES, DURATION, PERCENT, TIME, Line, Part, Point, line_plot, part_bar


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(markup))


def paths(figure: ElementTree.Element) -> list[str]:
    return [each.get("d", "") for each in figure.iter("path")]


def test_line_plot_says_what_it_shows() -> None:
    """A plot is well-formed, names its lines with their last values, and has the same numbers as a table."""
    line = Line("bound", [Point(0, 0.5), Point(10, 0.25), Point(20, 0.0125)])
    figure = parsed(line_plot([line], title="Errors", x=DURATION, y=PERCENT, limit=0.01, key="errors-table"))
    svg = figure.find("svg")
    assert svg is not None
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "Errors. Last values: bound: 1.25 %. limit: 1 %."
    rows = [["".join(cell.itertext()) for cell in row] for row in figure.iter("tr")]
    assert rows == [["time since it began", "bound"], ["0 s", "50 %"], ["10 s", "25 %"], ["20 s", "1.25 %"]]
    assert figure.find("details[@id='errors-table']") is not None
    legend = ["".join(each.itertext()).split() for each in figure.iter("li")]
    assert legend == [["bound", "1.25", "%"], ["limit", "1", "%"]]


def test_names_are_escaped() -> None:
    """What models, versions and people are called cannot become markup."""
    text = line_plot([Line("<b>&", [Point(0, 1)])], title='"><script>', note="<i>")
    assert not any(each in text for each in ("<b>", "<script", "<i>"))
    parsed(text)
    parsed(part_bar([Part("<b>", 1, '"')], total=2, title="<i>"))


def test_gaps_are_not_joined() -> None:
    """A value that is missing breaks a line, and a value alone is a dot."""
    points = [Point(0, 1), Point(1, 2), Point(2, None), Point(3, 4), Point(4, None)]
    figure = parsed(line_plot([Line("a", points)], title="a"))
    (path,) = paths(figure)
    assert (path.count("M"), path.count("L"), len(list(figure.iter("circle")))) == (2, 1, 1)


@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_yet(values: list[float | None]) -> None:
    """A plot of nothing says so."""
    figure = parsed(line_plot([Line("a", [Point(at, y) for at, y in enumerate(values)])], title="a"))
    assert figure.find("svg") is None
    assert "Nothing was counted yet." in "".join(figure.itertext())


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-3.0, -3.0], [1e-9, 1e9], [-1e6, 1.0], [1e18]])
def test_whatever_the_values_are(values: list[float]) -> None:
    """One value, equal ones, tiny, huge and negative ones are drawn within the frame, and axes have ticks."""
    figure = parsed(line_plot([Line("a", [Point(at, y) for at, y in enumerate(values)])], title="a", x=TIME))
    places = [float(each) for each in re.findall(r"[-0-9.e]+", " ".join(paths(figure)))]
    assert all(-0.1 <= each <= 400.1 for each in places)
    assert list(figure.iter("text"))


def test_many_points_are_thinned_but_keep_their_peaks() -> None:
    """Of ten thousand points a few hundred are drawn, the greatest among them, and the table has forty rows."""
    points = [Point(at, 1000.0 if at == 7777 else float(at % 7)) for at in range(10_000)]
    figure = parsed(line_plot([Line("a", points)], title="a"))
    (path,) = paths(figure)
    places = re.findall(r"[ML]([-0-9.]+) ([-0-9.]+)", path)
    assert len(places) <= 240
    assert min(float(y) for _, y in places) < 25  # near the top
    assert len(list(figure.iter("tr"))) == 41


def test_bands_and_steps() -> None:
    """How surely a value is known is a band; a line that steps keeps its value."""
    points = [Point(0, 1, 0.5, 1.5), Point(1, 2, 1, 3)]
    figure = parsed(line_plot([Line("a", points, steps=True)], title="a"))
    assert figure.find("svg/polygon") is not None
    assert {"H", "V"} <= set(paths(figure)[0])
    assert "2 (1 to 3)" in "".join(figure.itertext())


def test_too_many_lines() -> None:
    """Nine lines are refused, as nobody could tell them apart."""
    with pytest.raises(ValueError, match="cannot be told apart"):
        line_plot([Line(str(each), [Point(0, 1)]) for each in range(9)], title="a")


def test_bar_of_parts() -> None:
    """Parts take their share of a bar; what does not fit makes it longer rather than be hidden."""
    bar = parsed(part_bar([Part("a", 1, "1 GiB"), Part("b", 2, "2 GiB")], total=4, title="Memory", total_text="4 GiB"))
    assert [each.get("width") for each in bar.iter("rect")] == ["100", "25.00", "50.00"]
    assert bar.get("aria-label") == "Memory: a 1 GiB, b 2 GiB, of 4 GiB"
    over = parsed(part_bar([Part("a", 3, "3"), Part("b", 5, "5")], total=4, title="Memory"))
    assert [each.get("width") for each in over.iter("rect")] == ["100", "37.50", "62.50"]
    assert parsed(part_bar([], total=None, title="Memory")).get("aria-label") == "Memory: nothing"


def test_bytes_have_ticks_of_powers_of_two() -> None:
    """An axis of bytes has its ticks where people expect them."""
    figure = parsed(line_plot([Line("a", [Point(0, 0), Point(1, 3 * 2**30)])], title="a", y=BYTES))
    ticks = {"".join(each.itertext()) for each in figure.iter("text")}
    assert {"0 B", "1 GiB", "2 GiB", "3 GiB"} <= ticks
