"""Confidence intervals against scipy's, and how often they hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from marway_observations.quality import intervals


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (0, 50), (1, 50), (25, 50), (50, 50), (999_000, 1_000_000)])
def test_parts(hits: int, of: int) -> None:
    """Wilson's interval is scipy's."""
    wanted = stats.binomtest(hits, of).proportion_ci(method="wilson")
    found = intervals.part(hits, of)
    assert found == (pytest.approx(hits / of), pytest.approx(wanted.low, abs=1e-9), pytest.approx(wanted.high))


@pytest.mark.parametrize("count", [2, 3, 10, 31, 32, 100, 10_000])
def test_means(count: int) -> None:
    """Student's interval is scipy's to four digits."""
    low, high = stats.t.interval(0.95, count - 1, loc=3, scale=2 / np.sqrt(count))
    assert intervals.mean(count, 3, 2) == (3, pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))


def test_where_nothing_can_be_said() -> None:
    """Without predictions there is no figure; with one, or where all are alike, no interval is made up."""
    assert intervals.part(0, 0) == intervals.mean(0, None, None) == intervals.Interval(None)
    assert intervals.mean(1, 3.0, None) == (3.0, None, None)
    assert intervals.r_squared(5, 1.0, 0.0, None) == intervals.Interval(None)
    assert intervals.area(0, 5, 0, 0, 0, 0) == intervals.Interval(None)
    assert intervals.mean_of_parts([]) == intervals.Interval(None)


def test_all_alike_is_not_certain() -> None:
    """Twenty of each class told apart without a mistake leave the area's lower bound well below 1."""
    found = intervals.area(20, 20, below=400, below2=8000, above=400, above2=8000)
    assert found.value == 1.0
    assert found.lower == pytest.approx(intervals.part(20, 20).lower)
    assert intervals.mean_of_parts([intervals.part(20, 20)] * 2).lower == pytest.approx(0.886, abs=0.01)


@pytest.mark.parametrize("count", [60, 400])
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_means_over_classes_hold(name: str, count: int) -> None:
    """In repeated draws the intervals of macro averages contain the true value in 93 % of cases or more."""
    draw = np.random.default_rng(4)
    joint = np.array([[0.40, 0.05, 0.01], [0.06, 0.25, 0.03], [0.02, 0.04, 0.14]])

    def figure(cells: np.ndarray) -> intervals.Interval:
        hits, predicted, actual = np.diag(cells), cells.sum(0), cells.sum(1)
        if name == "f1":
            parts = [intervals.f1(*each) for each in zip(hits, predicted - hits, actual - hits, strict=True)]
        else:
            of = predicted if name == "precision" else actual
            parts = [intervals.part(*each) for each in zip(hits, of, strict=True)]
        return intervals.mean_of_parts(parts, shared=name == "f1")

    true = figure(joint * 1e9).value
    found = [figure(draw.multinomial(count, joint.ravel()).reshape(3, 3)) for _ in range(600)]
    assert np.mean([each.lower <= true <= each.upper for each in found]) > 0.93
