"""The queries of docs/observations.md for other engines, run by DuckDB, give what `marway quality` gives."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from marway.objects import ObjectStore
from marway.serving import QualityRule
from marway_observations import schema
from marway_observations.quality import measure
from marway_observations.reading import Observed
from support.observations import NOON, feedback, observation, write_feedback, write_observations

PAGE = Path(__file__).parents[2] / "docs/observations.md"
QUERIES = dict(re.findall(r"^```sql\n-- ([^\n]*)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
# What these engines have and DuckDB does not.
MACROS = (
    "get_json_object(text, path) AS json_extract_string(text, path)",
    "json_extract_scalar(text, path) AS json_extract_string(text, path)",
    "from_utf8(bytes) AS decode(bytes)",
    "string(bytes) AS decode(bytes)",
)


@pytest.fixture
def tables(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> duckdb.DuckDBPyConnection:
    """Predictions of two versions and days, some with several truths, where `marway up` would have them."""
    for version, right in (("1.0", 7), ("1.1", 4)):
        rows = [
            observation({"label": "a" if place < right else "b"}, version=version, at=NOON + timedelta(days=place % 2))
            for place in range(9)
        ]
        write_observations(store, "intent", [*rows, observation({"label": "b"}, version=version, role="shadow")])
        told = [feedback("a", prediction_id=row["prediction_id"], at=NOON + timedelta(days=3)) for row in rows[:8]]
        write_feedback(store, [*told, feedback("c", prediction_id=rows[0]["prediction_id"])])
    write_observations(store, "other", [observation({"label": "a"})])
    (tmp_path / ".marway").mkdir()
    (tmp_path / ".marway/registry").symlink_to(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    connection = duckdb.connect()
    for macro in MACROS:
        connection.execute(f"CREATE MACRO {macro}")
    for name, depth in (("observations", 4), ("feedback", 3)):
        files = f"store/{name}/{'/'.join('*' * depth)}.parquet"
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{files}', hive_partitioning = true)")
    return connection


@pytest.mark.parametrize("engine", ["Spark SQL", "Trino and Athena"])
def test_accuracy(tables: duckdb.DuckDBPyConnection, store: ObjectStore, engine: str) -> None:
    """By day and version, as `marway quality` tells it of the same day."""
    (query,) = (text for name, text in QUERIES.items() if name.startswith(f"{engine}: accuracy"))
    rule = QualityRule(kind="classification", prediction="label", window="1d")
    wanted = []
    for day in (NOON.replace(hour=0), NOON.replace(hour=0) + timedelta(days=1)):
        with Observed(store, model="intent") as observed:
            found = measure(observed, "intent", {"1.0": [rule], "1.1": [rule]}, now=day + timedelta(days=1))
        wanted += [(day.date(), each.version, each.known, each.value) for each in found if each.label is None]
    assert len(wanted) == 4
    found = tables.execute(query).fetchall()
    assert [(*row[:3], float(row[3])) for row in found] == [(*row[:3], pytest.approx(row[3])) for row in wanted]


def test_duckdb(tables: duckdb.DuckDBPyConnection) -> None:
    """The query for DuckDB reads the files of `marway up` in place."""
    assert tables.execute(QUERIES["DuckDB"]).fetchall() == [("1.0", "ok", 10, 0.01), ("1.1", "ok", 10, 0.01)]


def test_columns_of_the_table_for_athena() -> None:
    """The definition names columns that are kept, with the types that Parquet has for them."""
    columns = re.search(r"\((.*?)\)\nPARTITIONED", QUERIES["Athena, table"], re.DOTALL)
    assert columns is not None
    for name, kind in (each.split() for each in columns[1].replace("`", "").split(",")):
        field = schema.OBSERVATIONS.field(name).type
        stored = str(getattr(field, "value_type", field)).partition("[")[0]
        assert stored == kind, name
