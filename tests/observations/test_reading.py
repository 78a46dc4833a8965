"""Files of observations and feedback as tables."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marway.objects import ObjectStore, open_store
from marway_observations.reading import Observed
from support.observations import NOON, feedback, observation, write_feedback, write_merged, write_observations

HOUR = timedelta(hours=1)


class FarStore:
    """A directory as if it were in S3: its files can only be had through the store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.opened: list[str] = []

    url = "s3://bucket/prefix"

    def open(self, key, **window):
        self.opened.append(key)
        return self._store.open(key, **window)

    def __getattr__(self, name):
        return getattr(self._store, name)


def count(store: ObjectStore, table: str = "observations", **wanted) -> int:
    with Observed(store, **wanted) as observed:
        return observed.query(f"SELECT count(*) FROM {table}")[0][0]


def test_nothing_kept(store: ObjectStore) -> None:
    """Where nothing was kept both tables are there, empty, with all columns."""
    with Observed(store, model="intent") as observed:
        assert observed.query("SELECT prediction_id, model, output FROM observations") == []
        assert observed.query("SELECT feedback_id, truth FROM feedback") == []
        assert observed.left_out == ()


def test_models_and_times(store: ObjectStore) -> None:
    """Only the model and the time that were asked for are in the table, to the microsecond."""
    times = [NOON - HOUR, NOON, NOON + timedelta(microseconds=1), NOON + HOUR]
    write_observations(store, "intent", [observation(at=at) for at in times])
    write_observations(store, "2024", [observation()])
    assert count(store) == 5
    assert count(store, model="intent") == 4
    assert count(store, model="intent", since=NOON) == 3
    assert count(store, model="intent", since=NOON, until=NOON + HOUR) == 2
    assert count(store, model="intent", until=NOON) == 1
    with Observed(store) as observed:
        assert observed.query("SELECT DISTINCT model FROM observations ORDER BY 1") == [("2024",), ("intent",)]
        assert observed.query('SELECT min("at") FROM observations') == [(NOON - HOUR,)]


def test_feedback_times(store: ObjectStore) -> None:
    """Feedback counts by when it came, however late, unless a time is given at which it was known."""
    write_feedback(
        store, [feedback(prediction_id="A", at=NOON, received_at=NOON + days * 24 * HOUR) for days in range(3)]
    )
    assert count(store, "feedback", since=NOON, until=NOON + HOUR) == 3
    assert count(store, "feedback", since=NOON + 24 * HOUR) == 2
    assert count(store, "feedback", feedback_until=NOON + 25 * HOUR) == 2


@pytest.mark.parametrize("far", [False, True])
def test_merged(store: ObjectStore, far: bool) -> None:
    """What a merged file stands for counts once while both are there, also when the merged one was merged again."""
    first = write_observations(store, "intent", [observation() for _ in range(3)])
    second = write_observations(store, "intent", [observation() for _ in range(2)])
    write_merged(store, [*first])
    assert count(FarStore(store) if far else store, model="intent") == 5
    again = write_merged(store, [write_merged(store, [*first, *second])])
    assert count(FarStore(store) if far else store, model="intent") == 5 + 3  # two merged files stand for `first`
    store.delete(again)


def test_broken_files_are_named(store: ObjectStore, tmp_path: Path) -> None:
    """Files that were cut, or whose pages are damaged, are left out and named; all others count."""
    keys = [write_observations(store, "intent", [observation({"label": "x" * 50}) for _ in range(9)])[0] for _ in "abc"]
    cut, damaged = (tmp_path / "store" / key for key in keys[:2])
    cut.write_bytes(cut.read_bytes()[:-20])
    data = bytearray(damaged.read_bytes())
    data[4:200] = bytes(196)
    damaged.write_bytes(data)
    with Observed(store, model="intent") as observed:
        assert observed.query("SELECT count(DISTINCT prediction_id) FROM observations") == [(9,)]
        assert {each.key for each in observed.left_out} == set(keys[:2])
        assert observed.files == 1


def test_files_go_while_they_are_read(store: ObjectStore, tmp_path: Path) -> None:
    """A merge between two questions changes no count."""
    keys = [write_observations(store, "intent", [observation()])[0] for _ in range(3)]
    with Observed(store, model="intent") as observed:
        assert observed.query("SELECT count(DISTINCT prediction_id) FROM observations") == [(3,)]
        write_merged(store, keys)
        for key in keys:
            store.delete(key)
        assert observed.query("SELECT count(DISTINCT version || prediction_id) FROM observations") == [(3,)]
        with pytest.raises(duckdb.ParserException):
            observed.query("SELEC")


def test_copies(store: ObjectStore, tmp_path: Path) -> None:
    """Files in S3 are copied once where copies are kept, and for one reader where not."""
    write_observations(store, "intent", [observation()])
    far = FarStore(store)
    copies = tmp_path / "copies"
    assert [count(far, copies=copies) for _ in range(3)] == [1, 1, 1]
    assert len(far.opened) == 1
    assert len([path for path in copies.rglob("*") if path.is_file()]) == 1
    assert [count(far) for _ in range(2)] == [1, 1]
    assert len(far.opened) == 3


def test_columns_of_other_versions(store: ObjectStore, tmp_path: Path) -> None:
    """Files with fewer columns have nulls there; with more, those are not seen."""
    (key,) = write_observations(store, "intent", [observation(group_id="a")])
    path = tmp_path / "store" / key
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns(["group_id"]), path.with_name("older.parquet"))
    pq.write_table(table.append_column("later", pa.array([1])), path.with_name("later.parquet"))
    with Observed(store) as observed:
        found = observed.query("SELECT group_id, prediction_id IS NOT NULL, model FROM observations ORDER BY 1")
    assert found == [("a", True, "intent"), ("a", True, "intent"), (None, True, "intent")]


@pytest.mark.extended  # starts an S3 server; test_copies and test_merged go the same way over a store of this process
def test_s3(s3_url: str) -> None:
    """Files in a real S3 are found and read by model and time."""
    store = open_store(s3_url)
    write_observations(store, "intent", [observation(at=NOON + place * HOUR) for place in range(30)])
    write_observations(store, "other", [observation()])
    write_feedback(store, [feedback(True, prediction_id="A")])
    assert count(store) == 31
    assert count(store, model="intent", since=NOON + 10 * HOUR, until=NOON + 20 * HOUR) == 10
    assert count(store, "feedback") == 1
