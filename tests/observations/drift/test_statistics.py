"""Distances and p-values, held against scipy's and against what they promise."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from marway_observations.drift.statistics import chi_square_p, homogeneity_p, ks_distance, ks_p, psi


@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 10, 49, 100])
@pytest.mark.parametrize("statistic", [0.0, 0.5, 3.0, 20.0, 90.0, 400.0])
def test_chi_square_is_scipys(statistic: float, degrees: int) -> None:
    """The closed form gives the tail that scipy gives, to nine digits."""
    assert chi_square_p(statistic, degrees) == pytest.approx(stats.chi2.sf(statistic, degrees), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("before", "after"), [([50, 30, 20], [40, 45, 15]), ([500, 480, 20], [90, 110, 9])])
def test_homogeneity_is_pearsons(before: list[int], after: list[int]) -> None:
    """Where every bin has rows enough it is Pearson's test of a table of two rows."""
    expected = stats.chi2_contingency([before, after], correction=False).pvalue
    rows_before, rows_after = sum(before), sum(after)
    found = homogeneity_p([n / rows_before for n in before], [n / rows_after for n in after], rows_before, rows_after)
    assert found == pytest.approx(expected, rel=1e-9)


def test_homogeneity_counts_sparse_bins_as_one() -> None:
    """Bins with too few rows are one, and where no two are left nothing can be said."""
    sparse = homogeneity_p([0.5, 0.46, 0.02, 0.02], [0.5, 0.46, 0.0, 0.04], 100, 100)
    assert sparse == pytest.approx(homogeneity_p([0.5, 0.5], [0.5, 0.5], 100, 100))
    assert homogeneity_p([1.0], [1.0], 1000, 1000) == 1.0
    assert homogeneity_p([0.9, 0.1], [0.1, 0.9], 4, 4) == 1.0


@pytest.mark.parametrize("rows", [(50, 60), (500, 400), (20_000, 1_000)])
def test_ks_is_scipys(rows: tuple[int, int]) -> None:
    """The distance of two samples, and its p-value as far as the approximation goes."""
    draw = random.Random(rows[0])
    one = [draw.gauss(0, 1) for _ in range(rows[0])]
    two = [draw.gauss(0.15, 1) for _ in range(rows[1])]
    expected = stats.ks_2samp(one, two, method="asymp")
    points = sorted({*one, *two})
    place = {value: index for index, value in enumerate(points)}
    shares = [[0.0] * len(points), [0.0] * len(points)]
    for values, share in ((one, shares[0]), (two, shares[1])):
        for value in values:
            share[place[value]] += 1 / len(values)
    distance = ks_distance(*shares)
    assert distance == pytest.approx(expected.statistic, abs=1e-12)
    assert ks_p(distance, *rows) == pytest.approx(stats.ks_2samp(one, two, method="exact").pvalue, abs=0.02)


def test_ks_p_has_its_ends() -> None:
    """No distance is no surprise, and the largest one is the greatest."""
    assert ks_p(0.0, 100, 100) == 1.0
    assert ks_p(1.0, 100, 100) < 1e-40


def test_psi_is_the_symmetrised_divergence() -> None:
    """With many rows it is the sum of both Kullback-Leibler divergences; the same both ways, 0 for equal shares."""
    before, after = [0.5, 0.3, 0.2], [0.4, 0.3, 0.3]
    expected = stats.entropy(before, after) + stats.entropy(after, before)
    assert psi(before, after, 1e9, 1e9) == pytest.approx(expected, rel=1e-6)
    assert psi(after, before, 1e9, 1e9) == pytest.approx(expected, rel=1e-6)
    assert psi(before, before, 1000, 1000) == pytest.approx(0, abs=1e-12)


def test_psi_of_an_empty_bin_is_finite() -> None:
    """A category that is new does not make the index infinite, and counts for more the more rows it has."""
    little = psi([1.0, 0.0], [0.99, 0.01], 10_000, 1_000)
    much = psi([1.0, 0.0], [0.7, 0.3], 10_000, 1_000)
    assert 0 < little < 0.2 < much < 10
