"""What copies told: counts of several processes add up, whatever the order, and times to within five percent."""

from __future__ import annotations

import random

import pytest

from marway.shadow.counts import NAMES_MAX, Durations, Example, ShadowCounts, count_name


def counts(seed: int) -> ShadowCounts:
    rng = random.Random(seed)
    made = ShadowCounts(answered=rng.randrange(100), compared=rng.randrange(100), agreed=rng.randrange(100))
    for _ in range(20):
        count_name(made.fields, rng.choice(["label", "score", "scores[].label"]))
        made.model_s.add(rng.expovariate(100))
        made.note(Example(at=rng.random(), kind="value"))
    return made


def test_counts_add_up_in_any_order() -> None:
    """Sums are the same whoever is added to whom, through JSON as well; the newest examples stay."""
    each = [ShadowCounts.model_validate_json(counts(seed).model_dump_json()) for seed in range(4)]
    sums = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        total = ShadowCounts()
        for place in order:
            total.add(each[place])
        sums.append(total)
    assert sums[0] == sums[1]
    assert sums[0].answered == sum(one.answered for one in each)
    assert sum(sums[0].fields.values()) == 80
    newest = sorted((example.at for one in each for example in one.examples), reverse=True)
    assert [example.at for example in reversed(sums[0].examples)] == newest[:10]


@pytest.mark.parametrize("part", [0.5, 0.99])
def test_quantiles(part: float) -> None:
    """A quantile is within five percent of the true one."""
    rng = random.Random(7)
    times = sorted(rng.lognormvariate(-4, 1) for _ in range(2000))
    durations = Durations()
    for each in times:
        durations.add(each)
    assert durations.quantile(part) == pytest.approx(times[int(part * 2000)], rel=0.06)
    assert Durations().quantile(part) is None


def test_names_are_bounded() -> None:
    """Names that callers or models make are at most so many, each cut."""
    made = ShadowCounts()
    for number in range(NAMES_MAX + 50):
        count_name(made.errors, f"{'x' * 300}{number}" if number % 2 else str(number))
    assert len(made.errors) <= NAMES_MAX + 1
    assert sum(made.errors.values()) == NAMES_MAX + 50
    assert max(map(len, made.errors)) <= 200
