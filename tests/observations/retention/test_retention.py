"""`marway gc`: what is too old goes, small files become one, and nothing is counted twice or lost on the way."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.observe.observations.test_observations import info
from marway.objects import DirectoryStore, ObjectStore, open_store
from marway.registry import Registry, open_registry
from marway_gateway.observe.metrics import Metrics
from marway_gateway.observe.observations import Limits, Observations
from marway_observations.layout import FEEDBACK, observations_prefix, partition
from marway_observations.parquet import encode, file_name
from marway_observations.reading import Observed
from marway_observations.retention import collect
from marway_observations.retention.turn import KEY, Turn
from marway_observations.schema import FEEDBACK as FEEDBACK_SCHEMA
from marway_observations.schema import OBSERVATIONS as SCHEMA
from support.every import usual
from support.registry import Publish


@pytest.fixture
def store(registry: Registry) -> DirectoryStore:
    return DirectoryStore(Path(registry.url.removeprefix("file://")))


def put(store: ObjectStore, at: datetime, *ids: str, model: str = "intent", more: bool = False) -> str:
    """Write a file of observations."""
    few = {"version": "1", "role": "base", "surface": "native", "outcome": "ok", "bodies": "off", "attempts": 1}
    few |= {"duration_s": 0.1, "request_bytes": 1, "response_bytes": 1, "rate": 1.0}
    table = pa.Table.from_pylist([{"prediction_id": each, "at": at, **few} for each in ids], schema=SCHEMA)
    if more:
        table = table.append_column("of_a_later_version", pa.array(["new"] * len(ids)))
    key = observations_prefix(model) + partition(at) + file_name("gateway")
    store.create(key, encode(table))
    return key


def told(store: DirectoryStore, at: datetime, *ids: str) -> str:
    """Write a file of feedback."""
    rows = [
        {"feedback_id": f"F{each}", "prediction_id": each, "at": at, "received_at": at, "score": 1.0} for each in ids
    ]
    key = FEEDBACK + partition(at) + file_name("gateway")
    store.create(key, encode(pa.Table.from_pylist(rows, schema=FEEDBACK_SCHEMA)))
    return key


def read(store: DirectoryStore, key: str) -> pa.Table:
    return pq.read_table(io.BytesIO(store.get(key).data))


def ids(store: ObjectStore, table: str = "observations") -> list[str]:
    """All prediction ids that a reader sees, each as often as it does."""
    with Observed(store) as found:
        return sorted(row[0] for row in found.query(f"SELECT prediction_id FROM {table}"))


def ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


def test_what_is_older_than_its_model_is_kept_goes(registry: Registry, store: DirectoryStore, publish: Publish) -> None:
    """Observations by the longest of the model's versions, feedback by the longest of all; whole hours."""
    publish("intent", "1")
    publish("intent", "2")
    publish("digits", "1")
    registry.set_serving("intent", set_fields={"observe_keep_days": 3}, by="test")
    registry.set_serving("intent", version="2", set_fields={"observe_keep_days": 5}, by="test")
    gone = [put(store, ago(days=5, hours=2), "A"), put(store, ago(days=31), "B", model="digits")]
    kept = [put(store, ago(days=4), "C"), put(store, ago(days=29), "D", model="digits")]
    old, young = told(store, ago(days=31), "A"), told(store, ago(days=29), "D")
    planned = collect(registry, dry_run=True)
    assert sorted(planned["expired"]) == sorted([*gone, old])
    assert len(ids(store)) == 4
    assert collect(registry) == planned
    assert sorted(key for key in store.keys("") if key.endswith(".parquet")) == sorted([*kept, young])


def test_small_files_of_hours_that_ended_become_one(registry: Registry, store: DirectoryStore) -> None:
    """All rows are in it, columns of later versions too; the hour that is not over is left; then nothing is to do."""
    hour = ago(hours=3)
    small = [put(store, hour, "A", "B"), put(store, hour, "C", more=True), put(store, hour, "D")]
    now = [put(store, ago(), "E"), put(store, ago(), "F")]
    feedback = [told(store, hour, "C", "D"), told(store, hour, "A", "B")]
    planned = collect(registry, dry_run=True)
    assert sorted(planned["replaced"]) == sorted(small + feedback)
    assert sorted(store.keys("observations/")) == sorted(small + now)
    done = collect(registry)
    assert sorted(done["replaced"]) == sorted(small + feedback)
    merged, of_feedback = sorted(done["merged"], key=lambda key: key.startswith(FEEDBACK))
    assert sorted(store.keys("observations/")) == sorted([merged, *now])
    table = read(store, merged)
    assert sorted(table["prediction_id"].to_pylist()) == ["A", "B", "C", "D"]
    assert sorted(table["of_a_later_version"].to_pylist(), key=str) == [None, None, None, "new"]
    assert read(store, of_feedback)["prediction_id"].to_pylist() == ["A", "B", "C", "D"]  # sorted, as all of feedback
    assert ids(store) == ["A", "B", "C", "D", "E", "F"]
    assert not any(collect(registry).values())


class Crash(Exception):
    pass


@pytest.mark.parametrize("after", usual(1, 2, 6, more=(0, 3, 4, 5, 7)))
def test_fault_a_crash_while_merging(
    registry: Registry, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Whatever change of the store was the last one, each row is seen once, before and after the next gc."""
    hour = ago(hours=3)
    for each in "ABC":
        put(store, hour, each)
        told(store, hour, each)
    monkeypatch.setattr("marway_observations.retention.collecting.open_observations", lambda *_: store)
    left = [after]

    def counting(name: str) -> Callable[..., object]:
        change = getattr(DirectoryStore, name)

        def counted(self: DirectoryStore, key: str, *args: object, **more: object) -> object:
            if key.endswith(".parquet"):
                if left[0] == 0:
                    raise Crash
                left[0] -= 1
            return change(self, key, *args, **more)

        return counted

    with monkeypatch.context() as broken:
        for name in ("create_file", "delete"):
            broken.setattr(DirectoryStore, name, counting(name))
        with contextlib.suppress(Crash):
            collect(registry)
    assert ids(store) == ids(store, "feedback") == ["A", "B", "C"]
    put(store, hour, "D")  # late
    collect(registry)
    assert ids(store) == ["A", "B", "C", "D"]
    assert ids(store, "feedback") == ["A", "B", "C"]
    assert len(list(store.keys("observations/"))) == len(list(store.keys(FEEDBACK))) == 1


def test_a_broken_file_is_left_and_named(registry: Registry, store: DirectoryStore) -> None:
    """The others of its hour become one."""
    hour = ago(hours=3)
    whole = [put(store, hour, "A"), put(store, hour, "B")]
    broken = observations_prefix("intent") + partition(hour) + file_name("gateway")
    store.create(broken, b"PAR1 half a file")
    done = collect(registry)
    assert (done["broken"], sorted(done["replaced"])) == ([broken], sorted(whole))
    assert ids(store) == ["A", "B"]


def test_two_gcs_at_once_do_not_merge_the_same_files(registry: Registry, store: DirectoryStore) -> None:
    """The second leaves merging to the first, and takes over from one that died."""
    hour = ago(hours=3)
    put(store, hour, "A")
    put(store, hour, "B")
    with Turn(store) as turn:
        assert turn.ours
        assert collect(registry)["merged"] == []
        assert turn.renew()
    assert len(collect(registry)["merged"]) == 1
    with Turn(store):
        path = Path(registry.url.removeprefix("file://")) / KEY
        os.utime(path, (0, 0))
        put(store, hour, "C")
        assert len(collect(registry)["merged"]) == 1
    assert ids(store) == ["A", "B", "C"]


def test_another_store_than_the_registrys(registry: Registry, tmp_path: Path) -> None:
    """Observations that are kept elsewhere are looked after there."""
    elsewhere = DirectoryStore(tmp_path / "elsewhere")
    put(elsewhere, ago(days=40), "A")
    assert len(collect(open_registry(registry.url), observations=elsewhere.url)["expired"]) == 1


@pytest.mark.extended  # the same in a directory is above
def test_in_s3(registry: Registry, s3_url: str) -> None:
    """A gateway writes to a bucket, and gc makes few files of many there."""
    observed = open_store(s3_url)
    metrics, hour = Metrics(), ago(hours=3)
    kept = Observations(observed, metrics, Limits(flush_s=0.1))
    kept.add(info(), 0.1)
    kept.close()
    assert ids(observed) == ["01PREDICTION"]
    for each in "ABC":
        put(observed, hour, each)
    done = collect(registry, observations=s3_url)
    assert (len(done["merged"]), len(done["replaced"])) == (1, 3)
    assert ids(observed) == ["01PREDICTION", "A", "B", "C"]
