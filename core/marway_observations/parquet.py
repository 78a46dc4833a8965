"""How observations and feedback become Parquet files: one place, so that all of them are alike."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from marway.refs import new_ulid
from marway_observations.layout import MERGED, REPLACES
from marway_observations.schema import FEEDBACK, OBSERVATIONS

__all__ = ["encode", "file_name", "merged_name", "options", "stands_for", "with_all", "writer_name"]

_STATISTICS: Final = ("prediction_id", "request_id", "group_id", "feedback_id", "at", "received_at")
_FEW: Final = {
    field.name for schema in (OBSERVATIONS, FEEDBACK) for field in schema if pa.types.is_dictionary(field.type)
}
"""Columns that have few different values."""
_UNFIT: Final = re.compile(r"[^A-Za-z0-9.]+")


def encode(table: pa.Table) -> bytes:
    """Return a table as a Parquet file, compressed with zstd; its columns keep their names and their order."""
    out = pa.BufferOutputStream()
    pq.write_table(table, out, **options(table.schema))
    return bytes(out.getvalue())


def options(schema: pa.Schema) -> dict[str, Any]:
    """Return what `pyarrow.parquet` is told for files of a schema.

    Dictionaries and statistics are made for the columns alone that gain by them: ids are all different, and nobody
    looks for the rows of a duration. The Arrow schema is left out: engines do not read it, and it is as long as the
    rows of a quiet model.
    """
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [name for name in schema.names if name in _FEW],
        "write_statistics": [name for name in _STATISTICS if name in schema.names],
        "store_schema": False,
    }


def writer_name() -> str:
    """Return what names of files that this machine writes begin with: its name, as far as a key can have it."""
    return _UNFIT.sub("-", socket.gethostname())[:60].strip("-.") or "gateway"


def file_name(writer: str) -> str:
    """Return a new name for a file of one writer; names of one writer sort by time."""
    return f"{writer}-{new_ulid()}.parquet"


def merged_name() -> str:
    """Return a new name for a file that stands for others."""
    return file_name(MERGED.rstrip("-"))


def stands_for(path: Path) -> list[str]:
    """Return the names of the files of its partition that a merged file stands for; none where it cannot be read."""
    try:
        names: list[str] = json.loads((pq.read_metadata(path).metadata or {}).get(REPLACES, b"[]"))
    except (OSError, ValueError, pa.ArrowException):
        return []
    return names


def with_all(table: pa.Table | pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema: those that a version of Marway did not write yet are null."""
    there = set(table.schema.names)
    columns = [
        table[field.name].cast(field.type) if field.name in there else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
