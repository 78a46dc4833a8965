"""Which side a caller is on: the same everywhere, as long as the rollout lasts, and as often as the percent says."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marway.refs import new_ulid
from marway.traffic import Traffic
from marway_gateway.traffic.assignment import is_candidates, sticky_key
from support.dividing import traffic_of

KEYS = [f"caller-{number}" for number in range(4000)]
percents = st.floats(0, 100, allow_nan=False)


def at(traffic: Traffic, percent: float) -> Traffic:
    return traffic.model_copy(update={"percent": percent})


def those(traffic: Traffic) -> set[str]:
    return {key for key in KEYS if is_candidates(traffic, key)}


def test_a_side_is_the_same_everywhere() -> None:
    """A side depends on nothing but the rollout, the key and the percent, in every process and on every machine."""
    traffic = traffic_of(rollout="01JZ3W5N8Q3F6A0C91D24B7E58", percent=5)
    assert sum(is_candidates(traffic, key) for key in KEYS) == 218
    assert [key for key in KEYS[:60] if is_candidates(traffic, key)] == [
        "caller-9",
        "caller-26",
        "caller-35",
        "caller-39",
        "caller-53",
    ]


@given(st.text(max_size=200), st.lists(percents, min_size=2, max_size=6))
def test_who_is_with_the_candidate_stays_there(key: str, percents: list[float]) -> None:
    """As the percent grows callers go over to the candidate, and none goes back."""
    traffic = traffic_of(rollout="01JZ3W5N8Q3F6A0C91D24B7E58")
    sides = [is_candidates(at(traffic, percent), key) for percent in sorted(percents)]
    assert all(later or not earlier for earlier, later in pairwise(sides))
    assert is_candidates(at(traffic, 100), key)
    assert not is_candidates(at(traffic, 0), key)


@pytest.mark.parametrize("percent", [0.1, 1, 5, 25, 50, 99])
def test_as_many_as_the_percent_says(percent: float) -> None:
    """Over many rollouts, callers with the candidate are as many as a fair draw gives: within five deviations."""
    shares = [len(those(traffic_of(rollout=new_ulid(), percent=percent))) for _ in range(5)]
    share, count = percent / 100, len(KEYS) * len(shares)
    assert abs(sum(shares) - share * count) <= 5 * math.sqrt(share * (1 - share) * count) + 1


def test_each_rollout_draws_anew() -> None:
    """Who was with one rollout's candidate is with another's as often as anybody."""
    one, other = (those(traffic_of(rollout=new_ulid(), percent=50)) for _ in range(2))
    assert abs(len(one & other) - len(KEYS) / 4) <= 5 * math.sqrt(len(KEYS) * 3 / 16)


@pytest.mark.parametrize(
    ("sticky", "key"),
    [("request", "r"), ("group", "g"), ("header:X-User", "u"), ("header:X-Tenant", "r"), ("header:X-Empty", "r")],
)
def test_what_a_caller_keeps_its_side_by(sticky: str, key: str) -> None:
    """It is what the rollout says, or the request itself where the caller does not say that."""
    said = {"x-user": "u", "x-empty": ""}
    assert sticky_key(sticky, request_id="r", group_id="g", header=said.get) == key
    if sticky == "group":
        assert sticky_key(sticky, request_id="r", group_id=None, header=said.get) == "r"
