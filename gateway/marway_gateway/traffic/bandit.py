"""Thompson's policy: the candidate gets the part of requests that is the probability that it is the better one.

Thompson (1933), "On the likelihood that one unknown probability exceeds another in view of the evidence of two
samples", gives each treatment to the part of patients that is the probability that it is the best. Drawn anew for each
request that needs the posterior at every request; moved now and then it is the same on average, and the same on all
gateways (Scott, 2010, "A modern Bayesian look at the multi-armed bandit": batches by probability matching). Rewards
between 0 and 1 are taken as parts of successes (Agrawal and Goyal, 2012, "Analysis of Thompson sampling").

Scores may be better in the evening, when the candidate gets more requests than it got in the morning: to add up each
version's scores would take the evening for the candidate's merit (Simpson's paradox). So versions are compared within
each time in which requests were divided alike, and the differences are put together with the weights of Mantel and
Haenszel (1959), which are best where the difference is the same at all times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

from marway.traffic import Traffic
from marway_observations.rollouts.results import PARTS, StepCounts

__all__ = ["LEAST_MOVE", "chance_better", "percent_of"]

LEAST_MOVE: Final = 2.0
"""By less than so many percent the division is left as it is: each move is a line of history and another division."""
_EVEN_MOVE: Final = 10.0
"""The same where the division is even: there the chance wanders most, and says least."""
_PRIOR: Final = 2.0
"""What is thought beforehand weighs as much as so many scores, each as good as all of that time are on average."""


def chance_better(steps: Sequence[StepCounts]) -> float:
    """Return the probability that the candidate's mean reward is above the base's; 0.5 where nothing is known.

    Each version's mean has, in each time, the Beta posterior of a Bernoulli reward; of their weighted difference mean
    and variance are exact, and its shape is taken to be normal.
    """
    weights = difference = variance = 0.0
    for step in steps:
        base, candidate = _successes(step.base), _successes(step.candidate)
        if not base[1] or not candidate[1]:
            continue
        middle = (base[0] + candidate[0]) / (base[1] + candidate[1])
        weight = base[1] * candidate[1] / (base[1] + candidate[1])
        means = [_posterior(successes, count, middle) for successes, count in (base, candidate)]
        weights += weight
        difference += weight * (means[1][0] - means[0][0])
        variance += weight**2 * (means[0][1] + means[1][1])
    if not weights:
        return 0.5
    if variance <= 0:
        return 0.5 if difference == 0 else float(difference > 0)
    return NormalDist().cdf(difference / math.sqrt(variance))


def percent_of(traffic: Traffic, chance: float) -> float | None:
    """Return how many requests in a hundred the candidate is to get from now on, or None where it stays.

    Args:
        traffic: The rollout, with its floor and cap.
        chance: The probability that it is the better one.
    """
    wanted = round(min(max(100 * chance, traffic.floor), traffic.cap), 1)
    share = traffic.percent / 100
    least = max(LEAST_MOVE, _EVEN_MOVE * 4 * share * (1 - share))
    if wanted in (traffic.floor, traffic.cap):
        least = LEAST_MOVE / 4  # it comes to rest there
    return wanted if abs(wanted - traffic.percent) >= least else None


def _successes(losses: Mapping[int, int]) -> tuple[float, int]:
    """Return how much reward there was, and of how many answers."""
    return sum((PARTS - loss) * count for loss, count in losses.items()) / PARTS, sum(losses.values())


def _posterior(successes: float, count: int, middle: float) -> tuple[float, float]:
    """Return mean and variance of a version's mean reward."""
    a, b = successes + _PRIOR * middle, count - successes + _PRIOR * (1 - middle)
    total = a + b
    return a / total, a * b / (total**2 * (total + 1))
