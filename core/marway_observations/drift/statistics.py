"""How far two distributions lie apart, and whether chance alone would do that.

The population stability index is the symmetrised Kullback-Leibler divergence of binned shares (Kullback and Leibler,
"On information and sufficiency", 1951; as the index: Lewis, "An introduction to credit scoring", 1994). It says how
large a shift is, and grows by chance where there are few rows or many bins (Yurdakul, "Statistical properties of
population stability index", 2018). So Pearson's test of homogeneity says beside it whether the shift is more than that.
The distance of Kolmogorov and Smirnov needs no choice of bins; its p-value follows Stephens, "Use of the
Kolmogorov-Smirnov, Cramér-von Mises and related statistics without extensive tables", 1970.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

__all__ = ["chi_square_p", "homogeneity_p", "ks_distance", "ks_p", "psi"]

_EXPECTED_MIN: Final = 5.0
"""Rows that a bin must be expected to have for the test's approximation to hold (Cochran, 1954)."""
_TERMS: Final = 100


def psi(reference: Sequence[float], current: Sequence[float], rows_reference: float, rows: float) -> float:
    """Return the population stability index of two lists of shares, bin by bin.

    Half a row is added to each bin, so that an empty one does not make it infinite.
    """
    total = 0.0
    for before, after in zip(reference, current, strict=True):
        smooth_before = (before * rows_reference + 0.5) / (rows_reference + 0.5 * len(reference))
        smooth_after = (after * rows + 0.5) / (rows + 0.5 * len(reference))
        total += (smooth_after - smooth_before) * math.log(smooth_after / smooth_before)
    return total


def homogeneity_p(reference: Sequence[float], current: Sequence[float], rows_reference: float, rows: float) -> float:
    """Return how likely shares that differ as much as these are where both come from the same (Pearson's chi-square).

    Bins in which fewer than 5 rows would be expected count as one. 1 where no two bins are left.
    """
    bins: list[tuple[float, float]] = []
    sparse_before = sparse_after = 0.0
    smaller = min(rows_reference, rows)
    for before, after in zip(reference, current, strict=True):
        if smaller * _pooled(before, after, rows_reference, rows) >= _EXPECTED_MIN:
            bins.append((before, after))
        else:
            sparse_before, sparse_after = sparse_before + before, sparse_after + after
    if smaller * _pooled(sparse_before, sparse_after, rows_reference, rows) >= _EXPECTED_MIN:
        bins.append((sparse_before, sparse_after))
    elif bins:
        least = min(range(len(bins)), key=lambda place: sum(bins[place]))
        bins[least] = (bins[least][0] + sparse_before, bins[least][1] + sparse_after)
    if len(bins) < 2:
        return 1.0
    effective = rows_reference * rows / (rows_reference + rows)
    statistic = sum(effective * (a - b) ** 2 / _pooled(a, b, rows_reference, rows) for a, b in bins)
    return chi_square_p(statistic, len(bins) - 1)


def _pooled(before: float, after: float, rows_before: float, rows_after: float) -> float:
    return (before * rows_before + after * rows_after) / (rows_before + rows_after)


def chi_square_p(statistic: float, degrees: int) -> float:
    """Return the chance of a larger chi-square, in closed form (Abramowitz and Stegun, 1964, 26.4.4 and 26.4.5)."""
    half = statistic / 2
    if half <= 0:
        return 1.0
    if degrees % 2:
        total, term, first = math.erfc(math.sqrt(half)), math.exp(-half) * math.sqrt(half) / math.gamma(1.5), 1.5
    else:
        total, term, first = 0.0, math.exp(-half), 1.0
    for step in range(degrees // 2):
        total += term
        term *= half / (first + step)
    return min(1.0, total)


def ks_distance(reference: Sequence[float], current: Sequence[float]) -> float:
    """Return the largest difference of two cumulative distributions, given as shares in the same bins, in order."""
    return max(
        (abs(a - b) for a, b in zip(accumulate(reference), accumulate(current), strict=True)),
        default=0.0,
    )


def ks_p(distance: float, rows_reference: float, rows: float) -> float:
    """Return how likely a distance as large is where both come from the same distribution.

    For distances in bins, and for numbers of which many are equal, it is too high rather than too low.
    """
    root = math.sqrt(rows_reference * rows / (rows_reference + rows))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0  # to eight digits; the series below converges slowly here
    total = 0.0
    for term in range(1, _TERMS):
        total += (-1) ** (term - 1) * math.exp(-2 * (term * scaled) ** 2)
    return min(1.0, max(0.0, 2 * total))
