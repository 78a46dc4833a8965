"""Betting against a mean: what it may win by chance, and that it agrees with those who wrote the papers."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ville
from hypothesis import given, settings
from hypothesis import strategies as st
from ville.evalues import combine

from marway_gateway.traffic.evidence.capital import Batch, log_capital, log_mean, lower_bound, mean, upper_bound
from marway_gateway.traffic.evidence.counts import live_batch

TABLE: list[dict[str, Any]] = json.loads((Path(__file__).parent / "confseq.json").read_text())["rows"]


def pairs(worse: float, better: float, same: float) -> Batch:
    return Batch(-1.0, 1.0, ((1.0, worse), (-1.0, better), (0.0, same)))


def events(ones: float, zeros: float) -> Batch:
    return Batch(0.0, 1.0, ((1.0, ones), (0.0, zeros)))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['counts']}-{row['limit']}-{row['above']}")
def test_the_authors_program_has_won_as_much(row: dict[str, Any]) -> None:
    """The same bets in confseq, by the authors of the paper, end with the same capital."""
    ones, halves, zeros = row["counts"]
    batch = Batch(0.0, 1.0, ((1.0, ones), (0.5, halves), (0.0, zeros)))
    found = log_capital([[batch]], row["limit"], above=row["above"])
    assert found == pytest.approx(row["log_capital"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("rate", "limit"), [(0.03, 0.01), (0.3, 0.1), (0.002, 0.01), (0.5, 0.2)])
def test_it_wins_about_what_a_mixture_over_all_rates_wins(rate: float, limit: float) -> None:
    """A grid of bets wins as much as ville's beta-binomial mixture, which is for events alone, less 3 and 1 %."""
    stream = (np.random.default_rng(5).random(4000) < rate).astype(float)
    theirs = float(ville.BernoulliTest(limit).fit(stream).log_e_values_[-1])
    ours = log_capital([[events(stream.sum(), 4000 - stream.sum())]], limit, above=rate > limit)
    assert ours > theirs * 0.99 - 3


@pytest.mark.parametrize("rates", [(0.03, 0.01, 0.96), (0.2, 0.2, 0.6), (0.0, 0.02, 0.98)])
def test_its_bounds_are_those_of_adaptive_bets(rates: tuple[float, float, float]) -> None:
    """Bounds for a mean are about as tight as ville's hedged capital, whose bets follow the data, and overlap it."""
    stream = np.random.default_rng(7).choice([1.0, -1.0, 0.0], size=3000, p=rates)
    theirs = ville.BettingCS(bounds=(-1.0, 1.0), alpha=0.02, grid=4000).fit(stream)
    batch = pairs(*(int((stream == value).sum()) for value in (1.0, -1.0, 0.0)))
    # Each of ours is one-sided, and theirs divides alpha between both sides.
    low, high = lower_bound([[batch]], 0.01), upper_bound([[batch]], 0.01)
    assert low is not None
    assert high is not None
    assert low < mean(batch) < high  # type: ignore[operator]  # something came
    assert high - low < 1.3 * float(theirs.upper_[-1] - theirs.lower_[-1])
    assert low < theirs.upper_[-1]
    assert high > theirs.lower_[-1]


def test_an_average_of_capitals_is_villes() -> None:
    """Capitals of gamblers who share the first stake are combined as ville combines e-values."""
    logs = [0.3, 7.0, -2.0]
    assert log_mean(logs) == pytest.approx(math.log(float(combine(np.exp(np.array(logs)), method="mean"))))


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("sides", [(0.0, 0.0), (0.3, 0.3), (0.05, 0.0), (0.5, 0.5)])
def test_by_chance_nothing_is_won(limit: float, sides: tuple[float, float]) -> None:
    """Where the mean is the limit, the capital after 12 outcomes is 1 on average over all that can come."""
    better, spare = sides
    worse = min(1.0 - better, limit + spare)
    true = worse - better
    total = 0.0
    for a, b in itertools.product(range(13), repeat=2):
        if a + b <= 12:
            ways = math.comb(12, a) * math.comb(12 - a, b)
            chance = ways * worse**a * better**b * (1 - worse - better) ** (12 - a - b)
            total += chance * math.exp(log_capital([[pairs(a, b, 12 - a - b)]], limit))
    assert total == pytest.approx(1.0, abs=1e-6) if abs(true - limit) < 1e-9 else total <= 1 + 1e-9


@pytest.mark.parametrize(("rate", "limit"), [(0.1, 0.1), (0.01, 0.01), (0.05, 0.1)])
def test_who_looks_after_every_outcome_is_deceived_no_oftener_than_alpha(rate: float, limit: float) -> None:
    """The exact chance that a harmless candidate's capital EVER reaches 1/alpha within 400 looks is at most alpha."""
    alpha = 0.05
    alive = {0: 1.0}
    deceived = 0.0
    for outcome in range(1, 401):
        after: dict[int, float] = {}
        for ones, chance in alive.items():
            after[ones] = after.get(ones, 0.0) + chance * (1 - rate)
            after[ones + 1] = after.get(ones + 1, 0.0) + chance * rate
        alive = {}
        for ones, chance in after.items():
            if chance < 1e-12:
                deceived += chance  # what is too rare to follow counts as a false alarm
            elif log_capital([[events(ones, outcome - ones)]], limit) >= -math.log(alpha):
                deceived += chance
            else:
                alive[ones] = chance
    assert 0 < deceived <= alpha


def test_callers_divided_by_chance_deceive_no_oftener_than_alpha_while_the_day_changes() -> None:
    """With 5 in 100 to the candidate, and errors of both that come and go, few of 300 runs ever reach 1/alpha."""
    draw, alpha, share = random.Random(11), 0.05, 0.05
    deceived = 0
    for _ in range(300):
        calls = candidate = base = 0
        for second in range(40):
            failing = 0.2 if second % 20 > 15 else 0.01
            for _ in range(25):
                calls += 1
                if draw.random() < failing:
                    candidate_side = draw.random() < share
                    candidate += candidate_side
                    base += not candidate_side
            batch = live_batch(share, calls, [(1.0, candidate)], [(1.0, base)])
            if log_capital([[batch]], 0.01) >= -math.log(alpha):
                deceived += 1
                break
    assert deceived <= 300 * alpha


counts = st.tuples(*[st.integers(0, 400)] * 3)


@given(st.lists(counts, min_size=1, max_size=5), st.floats(0.0, 0.3))
@settings(max_examples=60, deadline=None)
def test_only_how_often_each_value_came_matters(gateways: list[tuple[int, int, int]], limit: float) -> None:
    """Counts of several gateways, in any order, are worth what the sum of them is."""
    apart = log_capital([[pairs(*each) for each in gateways]], limit)
    backwards = log_capital([[pairs(*each) for each in reversed(gateways)]], limit)
    together = log_capital([[pairs(*(sum(each) for each in zip(*gateways, strict=True)))]], limit)
    assert apart == pytest.approx(together, abs=1e-6)
    assert backwards == pytest.approx(together, abs=1e-6)


@given(counts, st.integers(1, 99))
@settings(max_examples=40, deadline=None)
def test_bounds_lie_around_what_was_seen(seen: tuple[int, int, int], percent: int) -> None:
    """The mean of what came is within both bounds, which refute a mean no wrong way round."""
    batch = pairs(*seen)
    live = live_batch(percent / 100, sum(seen), [(1.0, seen[0] // 2)], [(1.0, seen[1] // 2)])
    for one in (batch, live):
        told = mean(one)
        low, high = lower_bound([[one]], 0.01), upper_bound([[one]], 0.01)
        if told is None:
            assert low is None
            assert high is None
        else:
            assert low is not None
            assert high is not None
            assert low <= max(-1.0, min(1.0, told)) + 1e-6
            assert high >= max(-1.0, min(1.0, told)) - 1e-6


def test_nothing_seen_is_no_bound() -> None:
    """Without an outcome there is no capital, no mean and no bound."""
    assert log_capital([], 0.01) == 0
    assert log_capital([[pairs(0, 0, 0)], []], 0.01) == pytest.approx(0)
    assert upper_bound([[], [pairs(0, 0, 0)]], 0.01) is None
    assert mean(pairs(0, 0, 0)) is None
