"""Whether one server answers faster than another, by pairs of times that were measured side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Timing", "median_interval", "timing_of"]

_CONFIDENCE: Final = 0.95
_ALIKE: Final = 0.05
"""Within so much of each other they count as equally fast: a machine's own unrest is as much."""

Verdict = Literal["faster", "slower", "as fast", "not told"]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long two servers took for the same requests, each pair sent one right after the other, in seconds.

    Attributes:
        pairs: How many pairs were measured.
        old_p50_s, new_p50_s: Medians.
        old_p95_s, new_p95_s: 95 of 100 took at most so long.
        ratio: The median of the pairs' ratios, new to old: below 1 the new one is faster.
        low, high: Between them lies the true median of the ratios with 95 % confidence; None of fewer than 6 pairs.
        verdict: What that says; `not told` where the interval allows both.
    """

    pairs: int
    old_p50_s: float
    new_p50_s: float
    old_p95_s: float
    new_p95_s: float
    ratio: float
    low: float | None
    high: float | None
    verdict: Verdict


def timing_of(old: Sequence[float], new: Sequence[float]) -> Timing | None:
    """Return how the times of pairs compare, in seconds; None without any.

    Ratios pair by pair, and not of the two medians: what slows the machine for a while slows both of a pair.
    """
    ratios = [theirs / ours for ours, theirs in zip(old, new, strict=True) if ours > 0 and theirs > 0]
    if not ratios:
        return None
    ratio, interval = statistics.median(ratios), median_interval(ratios)
    low, high = interval if interval is not None else (None, None)
    return Timing(
        pairs=len(ratios),
        old_p50_s=statistics.median(old),
        new_p50_s=statistics.median(new),
        old_p95_s=_nearest_rank(old, 95),
        new_p95_s=_nearest_rank(new, 95),
        ratio=ratio,
        low=low,
        high=high,
        verdict=_verdict(low, high),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return between which two values the median lies with 95 % confidence; None where they are too few.

    By the order of the values alone, so for any distribution: how many of them lie below the true median is binomial
    with a half.
    """
    count, ranked = len(values), sorted(values)
    if count > 1000:  # the normal approximation, within one rank of the exact one
        cut = math.floor((count - 1.959964 * math.sqrt(count)) / 2)
    else:
        cut, below = 0, 0
        while 2 * (below + math.comb(count, cut)) <= (1 - _CONFIDENCE) * 2**count:
            below += math.comb(count, cut)
            cut += 1
    return None if cut == 0 else (ranked[cut - 1], ranked[count - cut])


def _verdict(low: float | None, high: float | None) -> Verdict:
    if low is None or high is None:
        return "not told"
    if low >= 1 - _ALIKE and high <= 1 + _ALIKE:
        return "as fast"
    return "faster" if high < 1 else "slower" if low > 1 else "not told"


def _nearest_rank(values: Sequence[float], percent: int) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
