"""One table: its rows where they lie in the bundle, mapped into memory, found by binary search.

What is read of it is what the search and the rows touch: the table itself stays on the disk, and in the page cache
that all processes of the machine share.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from marway.bundles.reading import content_of, opened_bundle
from marway.errors import ArchiveCorrupt, InvalidArchive, InvalidGraph, InvalidRequest, clip
from marway.graphs.document import TABLE_BACKEND
from marway.graphs.tables import COLUMNS_FILE, TABLE_FILE, Columns, parse_columns
from marway.text import did_you_mean

__all__ = ["Table"]

Row = Mapping[str, Any]
_INT64: Final = np.iinfo(np.int64)


class Table:
    """An open table. It stays open for as long as something refers to it, also when its file is gone by then.

    Args:
        path: Its bundle, which never changes.
        name: What messages call it.

    Raises:
        ArchiveCorrupt: It is no table, or not as its columns say.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        try:
            self.columns, rows = _opened(path)
            keys = rows.column(0)
            self._find = _by_text(keys) if self.columns.key.datatype == "BYTES" else _by_number(keys)
            self._values = {
                column.name: _values(rows.column(place)) for place, column in enumerate(self.columns.columns, 1)
            }
        except (InvalidArchive, pa.ArrowException, OSError, KeyError) as exc:
            raise ArchiveCorrupt(f"{name} is no table that can be read: {clip(str(exc), 200)}") from exc
        self._all = tuple(self._values)

    def check_columns(self, columns: Sequence[str]) -> None:
        """Refuse columns that the table has not.

        Raises:
            InvalidGraph: One is not there.
        """
        for each in columns:
            if each not in self._values:
                known = ", ".join(self._all)
                raise InvalidGraph(
                    f"{self._name} has no column {each!r}: it has {known}{did_you_mean(each, self._all)}"
                )

    def rows(self, keys: Sequence[Any], columns: Sequence[str] | None) -> list[Row | None]:
        """Return each key's row, None for a key that is not there. May wait for the disk.

        Args:
            keys: JSON values.
            columns: Which columns; None: all but the key.

        Raises:
            InvalidGraph: There is no such column.
            InvalidRequest: A key is of another type than the table's.
        """
        if columns is not None:
            self.check_columns(columns)
        wanted = [(name, self._values[name]) for name in (self._all if columns is None else columns)]
        found: list[Row | None] = []
        for key in keys:
            place = self._find(self._checked(key))
            found.append(None if place is None else {name: value(place) for name, value in wanted})
        return found

    def _checked(self, key: Any) -> Any:
        """Return a key as the search has it."""
        if self.columns.key.datatype == "BYTES":
            if isinstance(key, str):
                return key.encode(errors="surrogatepass")
            wanted = "text"
        else:
            if isinstance(key, float) and key.is_integer():
                key = int(key)  # JSON has one kind of number
            if isinstance(key, int) and not isinstance(key, bool):
                return key
            wanted = "whole numbers"
        raise InvalidRequest(f"{clip(repr(key), 100)} cannot be a key of {self._name}, whose keys are {wanted}")


def _opened(path: Path) -> tuple[Columns, Any]:
    """Return what the columns of a table in a bundle are, and its one batch of rows, none of them read yet."""
    with opened_bundle(path) as bundle:
        manifest = bundle.manifest
        files = {each.name.removeprefix(f"{manifest.root}/"): each for each in bundle.files}
        if manifest.backend != TABLE_BACKEND or not {COLUMNS_FILE, TABLE_FILE} <= files.keys():
            raise InvalidArchive(f"{manifest.name} {manifest.version} is no table")
        columns = parse_columns(b"".join(content_of(bundle.file, files[COLUMNS_FILE])))
        at = files[TABLE_FILE]
        with pa.memory_map(str(path)) as mapped:
            mapped.seek(at.offset)
            reader = pa.ipc.open_file(pa.BufferReader(mapped.read_buffer(at.size)))
    names = [columns.key.name, *(each.name for each in columns.columns)]
    if reader.num_record_batches != 1 or reader.schema.names != names:
        raise InvalidArchive(f"its rows are not as its {COLUMNS_FILE} says")
    rows = reader.get_batch(0)
    if rows.num_rows != columns.rows:
        raise InvalidArchive(f"it has {rows.num_rows} rows, and its {COLUMNS_FILE} says {columns.rows}")
    return columns, rows


def _by_number(keys: Any) -> Callable[[int], int | None]:
    numbers = keys.to_numpy(zero_copy_only=True)

    def find(key: int) -> int | None:
        if not _INT64.min <= key <= _INT64.max:
            return None
        # Of this very type: for another one numpy would copy all keys.
        place = int(np.searchsorted(numbers, np.int64(key)))
        return place if place < len(numbers) and numbers[place] == key else None

    return find


def _by_text(keys: Any) -> Callable[[bytes], int | None]:
    _, offsets, data = keys.buffers()
    texts = _Texts(np.frombuffer(offsets, np.int64, len(keys) + 1, keys.offset * 8), memoryview(data))

    def find(key: bytes) -> int | None:
        place = bisect_left(texts, key)
        return place if place < len(texts) and texts[place] == key else None

    return find


class _Texts(Sequence[bytes]):
    """A column of texts as bytes, each taken out when it is looked at."""

    def __init__(self, offsets: Any, data: memoryview) -> None:
        self._offsets, self._data = offsets, data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, place: Any) -> Any:
        return bytes(self._data[self._offsets[place] : self._offsets[place + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))


def _values(column: Any) -> Callable[[int], Any]:
    """Return what gives a column's value in a row as JSON has it, by the quickest way that its type allows."""
    kind = column.type
    if column.null_count == 0:
        if pa.types.is_large_list(kind) and _is_number(kind.value_type):
            items = column.values.to_numpy(zero_copy_only=True)
            offsets = column.offsets.to_numpy(zero_copy_only=True)
            return lambda row: items[offsets[row] : offsets[row + 1]].tolist()
        if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
            items, size = column.flatten().to_numpy(zero_copy_only=True), kind.list_size
            return lambda row: items[row * size : (row + 1) * size].tolist()
        if _is_number(kind):
            numbers = column.to_numpy(zero_copy_only=True)
            return lambda row: numbers[row].item()
    return lambda row: column[row].as_py()


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
