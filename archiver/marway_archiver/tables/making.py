"""Makes a table's files: rows read from Parquet or Arrow, sorted by key, written for being read in place."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from marway.archives.entries import reason
from marway.errors import InvalidInput, clip
from marway.graphs.tables import COLUMNS_FILE, COLUMNS_MAX, TABLE_FILE, Columns, encode_columns
from marway.text import did_you_mean
from marway_archiver.tables.columns import plain_column, plain_key

__all__ = ["make_table"]

_PARQUET: Final = b"PAR1"
_ARROW: Final = b"ARROW1"


def make_table(source: Path, directory: Path, *, key: str, model_name: str, version: str) -> Columns:
    """Write the files of a table into an empty directory.

    All rows are held in memory, twice while they are sorted.

    Args:
        source: A Parquet file, or an Arrow IPC file or stream.
        directory: Where to write.
        key: The column that rows are found by.
        model_name: The table's name.
        version: Its version.

    Raises:
        InvalidInput: It cannot be read, has no rows, or not the key; two rows have the same; or a column has values
            that JSON has not.
    """
    table = _read(source)
    names = table.column_names
    try:
        if key not in names:
            raise InvalidInput(f"there is no column {key!r}: it has {', '.join(names)}{did_you_mean(key, names)}")
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
            raise InvalidInput(f"it has two columns {twice!r}")
        if not 2 <= len(names) <= COLUMNS_MAX + 1:
            raise InvalidInput(f"it has {len(names) - 1} columns beside the key; there are 1 to {COLUMNS_MAX}")
        if table.num_rows == 0:
            raise InvalidInput("it holds no rows")
        columns, rows = _plain(table, key)
        del table
        rows = _sorted(rows, key)
        with pa.OSFile(str(directory / TABLE_FILE), "wb") as sink, closing(pa.ipc.new_file(sink, rows.schema)) as out:
            (batch,) = rows.combine_chunks().to_batches()
            out.write_batch(batch)
    except InvalidInput as exc:
        raise InvalidInput(f"{source}: {exc.message}") from exc
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise InvalidInput(f"{source} cannot be made a table: {_reported(exc)}") from exc
    size = (directory / TABLE_FILE).stat().st_size
    (directory / COLUMNS_FILE).write_bytes(encode_columns(columns, model_name, version, size))
    return columns


def _plain(table: Any, key: str) -> tuple[Columns, Any]:
    """Return what the columns are, and the rows with the key first."""
    keys, about = plain_key(key, table[key])
    found = [plain_column(name, table[name]) for name in table.column_names if name != key]
    columns = Columns(key=about, rows=table.num_rows, columns=tuple(column for _, column in found))
    rows = pa.table([keys, *(values for values, _ in found)], [key, *(column.name for _, column in found)])
    return columns, rows


def _sorted(rows: Any, key: str) -> Any:
    """Return rows sorted by key: numbers by their value, text by its bytes.

    Raises:
        InvalidInput: Two have the same.
    """
    rows = rows.sort_by(key)
    keys = rows[key].combine_chunks()
    same = pc.equal(keys[1:], keys[:-1])
    if pc.any(same, min_count=0).as_py():
        first = keys[pc.index(same, True).as_py()].as_py()
        many = pc.sum(same).as_py()
        more = "" if many == 1 else f", and {many - 1} more keys or rows like it"
        raise InvalidInput(f"two rows have the key {clip(repr(first), 100)}{more}: a key stands for one row")
    return rows


def _read(source: Path) -> Any:
    """Return all rows of a file; what it is, its first bytes say."""
    try:
        with source.open("rb") as file:
            head = file.read(len(_ARROW))
        if head.startswith(_PARQUET):
            return pq.read_table(source, partitioning=None).replace_schema_metadata(None)
        with pa.memory_map(str(source)) as data:
            reader = pa.ipc.open_file(data) if head == _ARROW else pa.ipc.open_stream(data)
            return reader.read_all().replace_schema_metadata(None)
    except OSError as exc:
        if isinstance(exc, pa.ArrowException) or exc.errno is None:
            raise InvalidInput(f"{source} is no Parquet or Arrow file that can be read: {_reported(exc)}") from exc
        raise InvalidInput(f"{source} cannot be read: {reason(exc)}") from exc
    except pa.ArrowException as exc:
        raise InvalidInput(f"{source} is no Parquet or Arrow file that can be read: {_reported(exc)}") from exc


def _reported(exc: BaseException) -> str:
    return clip(" ".join(str(exc).split()), 200)
