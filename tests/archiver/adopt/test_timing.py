"""Which of two servers is faster, by pairs of times."""

from __future__ import annotations

import random

import pytest

from marway_archiver.adopt.comparing.timing import median_interval, timing_of


@pytest.mark.parametrize(("count", "ranks"), [(5, None), (6, (0, 5)), (9, (1, 7)), (20, (5, 14)), (100, (39, 60))])
def test_the_interval_is_that_of_order_statistics(count: int, ranks: tuple[int, int] | None) -> None:
    """The ranks of published tables (Conover, Practical Nonparametric Statistics, 95 %, two-sided)."""
    found = median_interval([float(each) for each in reversed(range(count))])
    assert found == (None if ranks is None else tuple(map(float, ranks)))


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of 400 skewed samples, 95 % and not fewer have the true median within."""
    source = random.Random(7)
    held = 0
    for _ in range(400):
        low, high = median_interval([source.expovariate(1.0) for _ in range(30)]) or (1.0, 0.0)
        held += low <= 0.6931 <= high
    assert held >= 375


@pytest.mark.parametrize(
    ("scale", "pairs", "verdict"),
    [(0.5, 40, "faster"), (2.0, 40, "slower"), (1.0, 40, "as fast"), (0.5, 3, "not told")],
)
def test_pairs_tell_who_is_faster(scale: float, pairs: int, verdict: str) -> None:
    """The ratio of pairs decides, whatever slows both for a while."""
    old = [0.01 * (1 + number % 7) for number in range(pairs)]
    found = timing_of(old, [each * scale for each in old])
    assert found is not None
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(scale)


def test_without_pairs_nothing_is_told() -> None:
    """No division by a time of none."""
    assert timing_of([], []) is None
    assert timing_of([0.0], [0.1]) is None
