"""Which kept inputs a replay sends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from marway.errors import NotFound
from marway.objects import ObjectStore
from marway_observations.replay import Wanted, choose
from support.observations import NOON, observation, write_observations

SECOND = timedelta(seconds=1)
WANTED = Wanted("intent", NOON - 60 * SECOND, NOON + 3600 * SECOND, label="PROD")


def chosen(store: ObjectStore, wanted: Wanted) -> list[str]:
    with choose(store, wanted) as inputs:
        rows = list(inputs)
    assert inputs.count == len(rows)
    assert [rows[0]["at"], rows[-1]["at"]] == [inputs.since, inputs.until]
    return [bytes(row["input"]).decode() for row in rows]


def test_chosen(store: ObjectStore) -> None:
    """The newest inputs of a label's callers, or of those that a version answered, in the order they came."""
    rows = [
        observation({"n": n}, input=f"i{n}".encode(), at=NOON + n * SECOND, version="2" if n % 2 else "1")
        for n in range(250)
    ]
    more = {"input": b"not this", "at": NOON + 300 * SECOND}
    rows += [
        observation({"n": 1}, role="shadow", **more),
        observation({"n": 1}, role="batch", **more),
        observation({"n": 1}, label="BETA", **more),
        observation({"n": 1}, **{**more, "at": NOON - 90 * SECOND}),
        observation(at=NOON + 301 * SECOND),
        observation(bodies="failed", input=b"fails", at=NOON + 302 * SECOND, outcome="model_error"),
    ]
    write_observations(store, "intent", rows)
    write_observations(store, "other", [observation({"n": 1}, **more)])
    assert chosen(store, WANTED) == [*(f"i{n}" for n in range(250)), "fails"]
    assert chosen(store, replace(WANTED, last=3)) == ["i248", "i249", "fails"]
    assert chosen(store, replace(WANTED, label=None, version="2", last=2)) == ["i247", "i249"]
    assert chosen(store, replace(WANTED, until=NOON + 2 * SECOND)) == ["i0", "i1"]
    assert chosen(store, replace(WANTED, label="BETA")) == ["not this"]


def test_none(store: ObjectStore) -> None:
    """Where there is nothing to send, it is said what was kept, and how inputs come to be."""
    with pytest.raises(NotFound, match=r"callers of PROD was kept .* nor anything else .* --since"):
        chosen(store, WANTED)
    write_observations(store, "intent", [observation(at=NOON), observation(at=NOON, bodies="too_large")])
    with pytest.raises(NotFound, match=r"of 1 predictions .off. .*intent --set observe=bodies; of 1 .*too large"):
        chosen(store, WANTED)
