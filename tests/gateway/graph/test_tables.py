"""Tables in a gateway: rows by key, read where they lie, of the version that is asked for."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from marway.errors import ArchiveCorrupt, InvalidGraph, InvalidRequest, Unavailable
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.resolve.resolved import Resolved
from marway_archiver import publish_table
from marway_archiver.tables.making import make_table
from marway_gateway.graph.tables.table import _by_number, _by_text
from marway_gateway.graph.tables.tables import KEYS_MAX, Tables
from marway_gateway.observe.metrics import Metrics
from marway_gateway.settings import GatewaySettings
from support.registry import publish

Publish = Callable[..., Resolved]
COLUMNS = {
    "user": ["ü", "b", "a", ""],
    "age": pa.array([1.5, None, 3.5, 4.5], pa.float32()),
    "count": [2**53 + 1, 2, 3, 4],
    "vector": pa.array([[1, 2], [3, 4], [5, 6], [7, 8]], pa.list_(pa.float32(), 2)),
    "words": [["x"], [], None, ["y", "z"]],
    "old": [True, False, None, True],
}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry(DirectoryStore(tmp_path / "registry"))
    found.create()
    return found


@pytest.fixture
def table(registry: Registry, tmp_path: Path) -> Publish:
    """Publishes a table."""

    def made(version: str = "1", key: str = "user", **columns: Any) -> Resolved:
        path = tmp_path / "rows.parquet"
        pa.parquet.write_table(pa.table(columns or COLUMNS), path)
        record = publish_table(path, model_name="users", version=version, key=key, registry=registry)
        return Resolved(record, record.serving, None)

    return made


@pytest.fixture
async def tables(registry: Registry, tmp_path: Path) -> AsyncIterator[Tables]:
    outcomes: list[str] = []
    made = Tables(registry, tmp_path / "tables", limit_bytes=10_000, observe=lambda each, _: outcomes.append(each))
    made.outcomes = outcomes  # type: ignore[attr-defined]
    yield made
    await made.aclose()


async def test_rows_are_found_by_key(tables: Tables, table: Publish) -> None:
    """Values come as JSON has them, a key that is not there as None, and columns as they are asked for."""
    users = table()
    found = await tables.rows(users, ["ü", "zz", "", "a"], None)
    assert found == [
        {"age": 1.5, "count": 2**53 + 1, "vector": [1.0, 2.0], "words": ["x"], "old": True},
        None,
        {"age": 4.5, "count": 4, "vector": [7.0, 8.0], "words": ["y", "z"], "old": True},
        {"age": 3.5, "count": 3, "vector": [5.0, 6.0], "words": None, "old": None},
    ]
    assert await tables.rows(users, ["b"], ["vector", "age"]) == [{"vector": [3.0, 4.0], "age": None}]
    assert tables.outcomes == ["ok"]  # type: ignore[attr-defined]


async def test_numbers_are_found_as_json_has_them(tables: Tables, table: Publish) -> None:
    """3.0 is 3, and what no 64 bits hold is not there."""
    users = table(key="count", count=[-5, 3, 2**62], x=["a", "b", "c"])
    found = await tables.rows(users, [3.0, -5, 2**62, 2**80, 0], None)
    assert [each and each["x"] for each in found] == ["b", "a", "c", None, None]


async def test_what_cannot_be_looked_up_is_said(
    tables: Tables, table: Publish, registry: Registry, tmp_path: Path
) -> None:
    """A key of another type, a column that is not there, too many keys, and what is no table."""
    users = table()
    for key in (1, None, True, ["a"], {"a": 1}):
        with pytest.raises(InvalidRequest, match="cannot be a key of table users 1, whose keys are text"):
            await tables.rows(users, [key], None)
    numbers = table("2", "count", count=[1], x=[1])
    for key in ("1", 1.5, True):
        with pytest.raises(InvalidRequest, match="whose keys are whole numbers"):
            await tables.rows(numbers, [key], None)
    with pytest.raises(InvalidGraph, match=r"table users 1 has no column 'ages': it has age, .*did you mean 'age'"):
        await tables.rows(users, ["a"], ["ages"])
    with pytest.raises(InvalidRequest, match=f"{KEYS_MAX} are most"):
        await tables.rows(users, ["a"] * (KEYS_MAX + 1), None)
    model = publish(registry, tmp_path, "model", "1")
    with pytest.raises(InvalidGraph, match="model 1 is no table"):
        await tables.rows(Resolved(model, model.serving, None), ["a"], None)
    lying = publish(registry, tmp_path, "lying", "1", backend="table", kind="bundle")
    with pytest.raises(ArchiveCorrupt, match="table lying 1 is no table that can be read"):
        await tables.rows(Resolved(lying, lying.serving, None), ["a"], None)


async def test_versions_are_fetched_once_and_those_used_least_make_room(tables: Tables, table: Publish) -> None:
    """Callers that ask at once share a fetch; the directory stays within its limit, whatever was open."""
    versions = [table(str(number), "id", id=[1, 2], x=["x" * 1500, str(number)]) for number in range(4)]
    first = await asyncio.gather(*(tables.rows(versions[0], [2], None) for _ in range(20)))
    assert first == [[{"x": "0"}]] * 20
    assert tables.outcomes == ["ok"]  # type: ignore[attr-defined]
    for number, each in enumerate(versions):
        assert await tables.rows(each, [2], None) == [{"x": str(number)}]
        kept = sum(path.stat().st_size for path in (tables._store._layout.root).glob("*.bundle"))
        assert kept <= 10_000
    assert await tables.rows(versions[0], [2], None) == [{"x": "0"}]
    assert tables.outcomes == ["ok"] * 5  # type: ignore[attr-defined]
    large = table("9", "id", id=[1], x=["x" * 30_000])
    with pytest.raises(Unavailable, match="this gateway keeps 10000 at most"):
        await tables.rows(large, [1], None)


async def test_the_default_directory_is_this_users_alone(
    registry: Registry, tmp_path: Path, table: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all users may write, a directory that others made or may write to is refused, a link as well."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    users, settings = table(), GatewaySettings(pods=())
    directory = tmp_path / f"marway-tables-{os.getuid()}"
    for make in (lambda: directory.mkdir(), lambda: directory.symlink_to(tmp_path)):
        make()
        if not directory.is_symlink():
            directory.chmod(0o777)
        tables = Tables.of(settings, registry, Metrics())
        with pytest.raises(Unavailable, match=r"not this user's alone.*setting `tables`"):
            await tables.rows(users, ["a"], None)
        await tables.aclose()
        directory.unlink() if directory.is_symlink() else directory.rmdir()
    tables = Tables.of(settings, registry, Metrics())
    assert (await tables.rows(users, ["a"], ["age"])) == [{"age": 3.5}]
    assert directory.stat().st_mode & 0o777 == 0o700
    await tables.aclose()


def test_the_search_finds_what_a_dictionary_finds() -> None:
    """For texts of any characters, and for numbers, the search is a dictionary's look-up."""
    chance = random.Random(7)
    for count in range(1, 40):
        texts = {"".join(chance.choices("aé\U0001f600\x00z", k=chance.randrange(4))) for _ in range(count)}
        ordered = sorted(each.encode() for each in texts)
        places = {key: place for place, key in enumerate(ordered)}
        find = _by_text(pa.array([key.decode() for key in ordered], pa.large_string()))
        for key in (*ordered, b"zzzz", b"\x00\x00", "é".encode(), b""):
            assert find(key) == places.get(key)
        numbers = sorted({chance.randrange(-20, 20) for _ in range(count)})
        of_number = {number: place for place, number in enumerate(numbers)}
        find_number = _by_number(pa.array(numbers, pa.int64()))
        assert [find_number(each) for each in range(-21, 22)] == [of_number.get(each) for each in range(-21, 22)]


def test_rows_lie_where_they_are_read_in_place(tmp_path: Path) -> None:
    """Nothing of a table is copied into memory when it is made ready: its columns are views of the file."""
    rows = pa.table({"id": [1, 2], "vector": pa.array([[1.0], [2.0]], pa.list_(pa.float64(), 1))})
    pa.parquet.write_table(rows, tmp_path / "t.parquet")
    (tmp_path / "out").mkdir()
    make_table(tmp_path / "t.parquet", tmp_path / "out", key="id", model_name="t", version="1")
    with pa.memory_map(str(tmp_path / "out/table.arrow")) as mapped:
        before = pa.total_allocated_bytes()
        batch = pa.ipc.open_file(mapped).get_batch(0)
        assert batch.column(0).to_numpy(zero_copy_only=True).flags.aligned
        assert pa.total_allocated_bytes() == before
