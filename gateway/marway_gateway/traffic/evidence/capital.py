"""Testing by betting: the capital that a gambler has won who bets that a mean lies above a limit.

Outcomes x₁, x₂, … lie in [low, high]. Under the hypothesis "the mean of each, given those before it, is at most m", a
gambler who stakes the fraction λ of what they have, 0 ≤ λ ≤ 1/(m − low), has Π (1 + λ(xᵢ − m)): never negative, and no
more than 1 in expectation at any time. So has any mixture of such gamblers. By Ville's inequality (Ville, 1939: Étude
critique de la notion de collectif) such a capital ever reaches 1/α with a probability of at most α: one may look after
each outcome, as often as one likes, and stop when one likes (Shafer, 2021: Testing by betting; Ramdas, Grünwald, Vovk
and Shafer, 2023: Game-theoretic statistics and safe anytime-valid inference). Those m whose hypotheses are not refuted
are a confidence sequence for the mean (Waudby-Smith and Ramdas, 2024: Estimating means of bounded random variables by
betting, JRSS B 86(1); their "hedged capital" with a grid of constant bets is what is here, with bets that are the same
whatever comes).

The bets are fixed beforehand. So the capital depends on HOW OFTEN each value came, and not on the order: counts of
several gateways are added, and what comes out is as valid as that of one gateway that saw all (each outcome's mean is
at most m whatever others have seen). The price for not adapting the bets is the logarithm of a weight, under 2.7 in log
capital.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["Batch", "log_capital", "log_mean", "lower_bound", "mean", "upper_bound"]

_FRACTIONS: Final = tuple(2.0 ** (-k / 2) for k in range(16))
"""Bets, as parts of a batch's largest sensible one: half octaves from all of it down to a 180th."""
_ALL_IN: Final = 0.2
_LOG_WEIGHTS: Final = (math.log(_ALL_IN), *(math.log((1 - _ALL_IN) / 15),) * 15)
"""What each bet has at first. All in has more: where nothing bad ever happens it is the best one, and the commonest."""
_HALVINGS: Final = 20
"""A bound is that of a millionth part."""
_NOTHING: Final = 1e-12
"""Of a stake, what counts as nothing left: all was staked, and lost."""


class Batch(NamedTuple):
    """Outcomes of one kind, of which only a few values can come.

    Attributes:
        low, high: Between which all values lie that could have come; their mean is within [-1, 1] all the same.
        outcomes: (value, how often it came). Counts may be fractions, for what is expected.
        scale: The size of the bets where the largest possible one would be out of proportion: that of values which are
            large and rare is about how rare they are. None bets parts of the largest possible one.
    """

    low: float
    high: float
    outcomes: Sequence[tuple[float, float]]
    scale: float | None = None


def log_capital(groups: Sequence[Sequence[Batch]], limit: float, *, above: bool = True) -> float:
    """Return the logarithm of what betting on "the mean is above the limit" has won, from 1.

    It is evidence against "the mean of every outcome is at most `limit`"; with `above=False` against "is at least".
    Within a batch the bets are the same, and each gambler goes on from batch to batch with what they have. Groups are
    bet on by gamblers of their own, among whom the first stake is divided: so what is in several groups may depend on
    one another.

    Args:
        groups: What came.
        limit: The bound of the hypothesis.
        above: On which side of it the bets are.
    """
    return log_mean([_log_mixture(group, limit, 1.0 if above else -1.0) for group in groups]) if groups else 0.0


def _log_mixture(batches: Sequence[Batch], limit: float, sign: float) -> float:
    """`sign` 1 bets on a mean above the limit, -1 on one below it."""
    logs = list(_LOG_WEIGHTS)
    for batch in batches:
        room = limit - batch.low if sign > 0 else batch.high - limit
        if room <= 0:  # a mean beyond what is possible: nothing is won or lost
            continue
        outcomes = [(sign * (value - limit), count) for value, count in batch.outcomes if count]
        for at, fraction in enumerate(_FRACTIONS):
            if logs[at] == -math.inf:
                continue
            stake = fraction / room if batch.scale is None else min(1 / room, fraction * batch.scale)
            for gain, count in outcomes:
                left = 1 + stake * gain
                if left <= _NOTHING:
                    logs[at] = -math.inf
                    break
                logs[at] += count * math.log(left)
    return _log_sum(logs)


def upper_bound(groups: Sequence[Sequence[Batch]], alpha: float) -> float | None:
    """Return what the mean is at most, at level 1 - alpha, at every look; None where nothing came.

    It is the smallest m at which "the mean is at least m" is refuted: capital at 1/alpha. That capital grows with m,
    for a bet below m wins more the higher m is, so that halving finds it.
    """
    return _bound(groups, alpha, above=False)


def lower_bound(groups: Sequence[Sequence[Batch]], alpha: float) -> float | None:
    """Return what the mean is at least, at level 1 - alpha, at every look; None where nothing came."""
    return _bound(groups, alpha, above=True)


def _bound(groups: Sequence[Sequence[Batch]], alpha: float, *, above: bool) -> float | None:
    seen = [batch for group in groups for batch in group if any(count for _, count in batch.outcomes)]
    if not seen:
        return None
    needed = -math.log(alpha)
    low, high = max(-1.0, *(batch.low for batch in seen)), min(1.0, *(batch.high for batch in seen))
    refuted, kept = (low, high) if above else (high, low)
    for _ in range(_HALVINGS):
        middle = (refuted + kept) / 2
        if log_capital(groups, middle, above=above) >= needed:
            refuted = middle
        else:
            kept = middle
    return refuted


def log_mean(logs: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Return the logarithm of the mean of capitals: a capital itself, of one who divided the first stake among them."""
    shares = weights or [1 / len(logs)] * len(logs)
    return _log_sum([each + math.log(share) for each, share in zip(logs, shares, strict=True)])


def _log_sum(logs: Sequence[float]) -> float:
    most = max(logs)
    if most == -math.inf:
        return most
    return most + math.log(sum(math.exp(each - most) for each in logs))


def mean(batch: Batch) -> float | None:
    """Return the mean of what came; None where nothing did."""
    count = sum(each for _, each in batch.outcomes)
    return sum(value * each for value, each in batch.outcomes) / count if count else None
