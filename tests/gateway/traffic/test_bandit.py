"""Thompson's policy: what share of requests a candidate gets for the scores that it has."""

from __future__ import annotations

import random

import pytest

from marway.records import utc_now
from marway.traffic import Traffic
from marway_gateway.traffic.bandit import chance_better, percent_of
from marway_observations.rollouts.results import StepCounts


def counts(base: tuple[int, int], candidate: tuple[int, int], *, share: float = 0.5) -> StepCounts:
    """Successes and failures of both."""
    return StepCounts(
        step=0,
        share=share,
        base={0: base[0], 8: base[1]},
        candidate={0: candidate[0], 8: candidate[1]},
    )


def traffic(percent: float, *, floor: float = 5, cap: float = 95) -> Traffic:
    return Traffic(
        percent=percent,
        floor=floor,
        cap=cap,
        policy="thompson",
        began=utc_now(),
        step_began=utc_now(),
        by="test",
    )


def test_the_chance_is_that_of_the_posteriors() -> None:
    """Against draws from the two Beta posteriors, where scores are enough to say anything."""
    draw = random.Random(11)
    for base, candidate in (((80, 20), (90, 10)), ((300, 700), (31, 69)), ((50, 50), (5, 5))):
        wins = sum(
            draw.betavariate(candidate[0] + 1, candidate[1] + 1) > draw.betavariate(base[0] + 1, base[1] + 1)
            for _ in range(20_000)
        )
        assert chance_better([counts(base, candidate)]) == pytest.approx(wins / 20_000, abs=0.06), (base, candidate)


def test_nothing_known_is_even_and_much_known_is_sure() -> None:
    """Without scores of both nobody is better; with many, what is better is certain."""
    assert chance_better([]) == 0.5
    assert chance_better([counts((10, 2), (0, 0))]) == 0.5
    assert chance_better([counts((4, 0), (4, 0))]) == pytest.approx(0.5)
    assert chance_better([counts((500, 500), (700, 300))]) > 0.9999
    assert chance_better([counts((700, 300), (500, 500))]) < 0.0001


def test_a_better_evening_is_nobodys_merit() -> None:
    """Scores that rise while the candidate gets more requests say nothing for it (Simpson's paradox)."""
    morning = counts((450, 450), (50, 50), share=0.1)
    evening = counts((90, 10), (810, 90), share=0.9)
    assert chance_better([morning, evening]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("now", "chance", "wanted"),
    [
        (50, 0.8, 80.0),
        (50, 0.58, None),
        (90, 0.93, None),
        (90, 0.94, 94.0),
        (50, 0.999, 95.0),
        (50, 0.001, 5.0),
        (94.6, 1.0, None),
        (5, 0.0, None),
    ],
)
def test_percents_move_by_two_points_at_least_and_within_their_bounds(
    now: float, chance: float, wanted: float | None
) -> None:
    """Small moves are not worth a line of history."""
    assert percent_of(traffic(now), chance) == wanted
