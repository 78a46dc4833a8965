"""95 % confidence intervals of the figures that quality is told in.

Each treats predictions as independent of one another. Sources: Wilson (1927) for parts of a whole; Student's t for
means; DeLong, DeLong and Clarke-Pearson (1988) on the logit scale for the area under the ROC curve; Zou and Donner
(2008) for means over classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

__all__ = ["Interval", "area", "f1", "mean", "mean_of_parts", "part", "r_squared", "root"]

_Z: Final = NormalDist().inv_cdf(0.975)
_T: Final = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484,
    2.0452, 2.0423,
)  # fmt: skip
"""Student's t at 0.975 for 1 to 30 degrees of freedom."""


class Interval(NamedTuple):
    """A figure and the bounds between which it is with 95 % confidence; None where nothing can be said."""

    value: float | None
    lower: float | None = None
    upper: float | None = None


def part(hits: float, of: float) -> Interval:
    """Return the part that ``hits`` are of a whole, by Wilson's score interval: sound also near 0 and 1."""
    if of <= 0:
        return Interval(None)
    p, z2 = hits / of, _Z * _Z
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of))
    return Interval(p, min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p))


def f1(true_positive: float, false_positive: float, false_negative: float) -> Interval:
    """Return 2TP / (2TP + FP + FN) of one class.

    It grows with TP / (TP + FP + FN), which is a part of a whole and has Wilson's interval.
    """
    found = part(true_positive, true_positive + false_positive + false_negative)
    return Interval(*(None if each is None else 2 * each / (1 + each) for each in found))


def mean_of_parts(parts: Sequence[Interval], *, shared: bool = False) -> Interval:
    """Return the mean over classes (macro average); a class with no interval counts as 0, and may be anything.

    Args:
        parts: One for each class.
        shared: Whether each error touches two classes, as in F1 (missed in one, wrongly found in another). Together
            two may vary by up to the square root of two more than if they were independent: that much is allowed for.
    """
    if not parts:
        return Interval(None)
    known = [(each.value or 0.0, each.lower or 0.0, 1.0 if each.upper is None else each.upper) for each in parts]
    value = sum(each[0] for each in known) / len(known)
    wider = math.sqrt(2) if shared else 1.0
    below = math.sqrt(sum((each[0] - each[1]) ** 2 for each in known)) * wider / len(known)
    above = math.sqrt(sum((each[2] - each[0]) ** 2 for each in known)) * wider / len(known)
    return Interval(value, max(value - below, 0.0), min(value + above, 1.0))


def mean(count: int, value: float | None, deviation: float | None) -> Interval:
    """Return a mean with Student's interval.

    Args:
        count: Of how many.
        value: The mean.
        deviation: The sample's standard deviation; with fewer than two there is none, and no interval.
    """
    if count == 0 or value is None:
        return Interval(None)
    if count == 1 or deviation is None:
        return Interval(value)
    half = _student(count - 1) * deviation / math.sqrt(count)
    return Interval(value, value - half, value + half)


def root(of: Interval) -> Interval:
    """Return the root of a figure that is not negative, such as the mean of squared errors."""
    return Interval(*(None if each is None else math.sqrt(max(each, 0.0)) for each in of))


def r_squared(count: int, error: float | None, spread: float | None, influence: float | None) -> Interval:
    """Return 1 - (mean squared error / variance of the truth), with the interval of the delta method.

    Args:
        count: Of how many.
        error: Mean of the squared errors.
        spread: Variance of the truth (of the population); where it is 0 the figure does not exist.
        influence: Standard deviation of each prediction's influence, `(error * d² / spread - e²) / spread`, with `e`
            its error and `d` how far its truth is from the mean truth.
    """
    if count == 0 or error is None or not spread:
        return Interval(None)
    value = 1 - error / spread
    if count < 3 or influence is None:
        return Interval(value)
    half = _student(count - 1) * influence / math.sqrt(count)
    return Interval(value, value - half, min(value + half, 1.0))


def area(positive: int, negative: int, below: float, below2: float, above: float, above2: float) -> Interval:
    """Return the area under the ROC curve.

    Args:
        positive: How many are of the positive class.
        negative: How many are not.
        below: Sum, over the positive, of how many negative ones have a lower score, ties counting half.
        below2: Sum of the squares of these.
        above: Sum, over the negative, of how many positive ones have a higher score, ties counting half.
        above2: Sum of the squares of these.
    """
    if positive == 0 or negative == 0:
        return Interval(None)
    value = below / positive / negative
    if positive < 2 or negative < 2:
        return Interval(value)
    of_positive = max(below2 / negative**2 - positive * value**2, 0.0) / (positive - 1)
    of_negative = max(above2 / positive**2 - negative * value**2, 0.0) / (negative - 1)
    variance = of_positive / positive + of_negative / negative
    if not 0 < value < 1 or variance <= 0:
        # All alike: what DeLong estimates is 0 and says nothing. As sure as the same part of the rarer class would be.
        rarer = min(positive, negative)
        return Interval(value, *part(value * rarer, rarer)[1:])
    logit = math.log(value / (1 - value))
    half = _Z * math.sqrt(variance) / (value * (1 - value))
    return Interval(value, _logistic(logit - half), _logistic(logit + half))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _student(freedom: int) -> float:
    """Return Student's t at 0.975: the table, and Cornish and Fisher's expansion beyond, right to five digits there."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = _Z
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
