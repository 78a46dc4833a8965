"""Tables from a file to a version."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import typer
from typer.testing import CliRunner

from marway.bundles.reading import opened_bundle
from marway.errors import InvalidArchive, InvalidInput
from marway.graphs.tables import COLUMNS_FILE, TABLE_FILE, Column, encode_columns
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_archiver import pack_bundle, publish_table
from marway_archiver.cli import register


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry(DirectoryStore(tmp_path / "registry"))
    found.create()
    return found


def file_of(directory: Path, columns: dict[str, Any]) -> Path:
    path = directory / "rows.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    return path


def test_rows_are_published_sorted_with_their_columns(registry: Registry, tmp_path: Path) -> None:
    """The record says what key and columns are, the same file gives the same version, and the rows lie aligned."""
    source = file_of(
        tmp_path,
        {
            "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "user": pa.array([30, 10, 20], pa.uint16()),
            "name": pa.array(["c", "a", "b"]).dictionary_encode(),
            "since": [date(2024, 1, 3), None, date(2024, 1, 2)],
            "score": [0.5, float("nan"), 1.5],
        },
    )
    for _ in range(2):
        record = publish_table(source, model_name="users", version="1", key="user", registry=registry, label="PROD")
    assert record.backend == "table"
    assert [(each.name, each.datatype) for each in record.signature.inputs] == [("user", "INT64")]
    assert [(each.name, each.datatype, each.shape) for each in record.signature.outputs] == [
        ("vector", "FP64", (-1, -1)),
        ("name", "BYTES", (-1,)),
        ("since", "BYTES", (-1,)),
        ("score", "FP64", (-1,)),
    ]
    assert registry.versions("users") == ("1",)
    path = tmp_path / "users.bundle"
    with registry.open_archive(record.archive) as archive:
        path.write_bytes(archive.read())
    with opened_bundle(path) as bundle:
        rows = next(each for each in bundle.files if each.name.endswith(TABLE_FILE))
    assert rows.offset % 64 == 0
    data = path.read_bytes()[rows.offset : rows.offset + rows.size]
    assert pa.ipc.open_file(data).read_all().to_pylist() == [
        {"user": 10, "vector": [3.0, 4.0], "name": "a", "since": None, "score": None},
        {"user": 20, "vector": [5.0, 6.0], "name": "b", "since": "2024-01-02", "score": 1.5},
        {"user": 30, "vector": [1.0, 2.0], "name": "c", "since": "2024-01-03", "score": 0.5},
    ]


@pytest.mark.parametrize("kind", ["file", "stream", "feather"])
def test_arrow_files_are_taken_too(registry: Registry, tmp_path: Path, kind: str) -> None:
    table, path = pa.table({"id": ["b", "a"], "x": [1, 2]}), tmp_path / "rows.arrow"
    if kind == "feather":
        pa.feather.write_feather(table, path)
    else:
        with {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}[kind](str(path), table.schema) as out:
            out.write_table(table)
    record = publish_table(path, model_name="t", version="1", key="id", registry=registry)
    assert record.signature.inputs[0].datatype == "BYTES"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"id": [1, 2, 1], "x": [1, 2, 3]}, "two rows have the key 1: a key stands for one row"),
        ({"ids": [1], "x": [1]}, "there is no column 'id': it has ids, x"),
        ({"id": [1, None], "x": [1, 2]}, "'id' is empty in 1 rows"),
        ({"id": [1.5], "x": [1]}, "'id' is of type double: a key is whole numbers or text"),
        ({"id": pa.array([2**63], pa.uint64()), "x": [1]}, "more than 63 bits"),
        ({"id": [1]}, "0 columns beside the key"),
        ({"id": pa.array([], pa.int64()), "x": pa.array([], pa.int64())}, "it holds no rows"),
        ({"id": [1], "x": [b"raw"]}, "column 'x' is of type binary: columns are numbers, texts"),
        ({"id": [1], "x": [{"a": 1}]}, "column 'x' is of type struct"),
        ({"id": [1], "x": [float("inf")]}, "column 'x' has a number that is infinite"),
        ({"id": [1], "x": [[1.0, None]]}, "lists with an empty place"),
        ({"id": [1], "x": [[float("nan")]]}, "not finite"),
        ({"id": [1], "x": [[[1]]]}, "column 'x' is a list of "),
    ],
)
def test_what_is_no_table_is_refused(registry: Registry, tmp_path: Path, columns: dict[str, Any], problem: str) -> None:
    """One sentence names the file, the column and what is wrong; nothing is stored."""
    with pytest.raises(InvalidInput) as caught:
        publish_table(file_of(tmp_path, columns), model_name="t", version="1", key="id", registry=registry)
    assert caught.value.message.startswith(f"{tmp_path}/rows.parquet: ")
    assert problem in caught.value.message
    assert registry.versions("t") == ()


def test_other_files_and_bundles_are_refused(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,x\n1,2\n")
    for name, problem in (("rows.csv", "is no Parquet or Arrow file"), ("none", "cannot be read: ")):
        with pytest.raises(InvalidInput, match=problem):
            publish_table(tmp_path / name, model_name="t", version="1", key="id", registry=registry)
    with pytest.raises(InvalidArchive, match=r"it is no table, which is columns\.json and table\.arrow"):
        pack_bundle(model_name="t", version="1", backend="table", export_path=tmp_path)
    with pytest.raises(InvalidInput, match="'observe' has no effect: t 1 is a table"):
        publish_table(
            file_of(tmp_path, {"id": [1], "x": [1]}),
            model_name="t",
            version="1",
            key="id",
            registry=registry,
            record={"serving": {"observe": "bodies"}},
        )


def test_the_verb_publishes(registry: Registry, tmp_path: Path) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)
    source = str(file_of(tmp_path, {"id": [1, 2], "x": [1, 2]}))
    arguments = ["table", "publish", source, "--model-name", "t", "-v", "1", "--key", "id", "--registry", registry.url]
    assert CliRunner().invoke(app, arguments).stdout.startswith("published table t 1 (mv_")


def test_the_padding_is_as_long_as_the_rows_want() -> None:
    """Whatever name, version and number of rows are, the document is JSON and moves the rows to where they belong."""
    from marway.graphs.tables import Columns, parse_columns

    columns = Columns(key=Column(name="id", datatype="INT64"), rows=1, columns=(Column(name="x", datatype="FP32"),))
    sizes = {len(encode_columns(columns, "n" * long, "1", 2**32 * (long % 2))) % 64 for long in range(1, 20)}
    assert len(sizes) > 10
    assert parse_columns(encode_columns(columns, "n", "1", 5)) == columns
    assert COLUMNS_FILE < TABLE_FILE
