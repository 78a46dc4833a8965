"""Rows become columns: this runs in the observations' thread for every prediction, so it works on many at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from marway.wire.model_run import ModelRun
from marway_gateway.observe.observations.rows import NAMES, ROW, Row
from marway_observations.layout import observations_prefix, partition
from marway_observations.schema import OBSERVATIONS

__all__ = ["ModelRows"]

_CHUNK_ROWS: Final = 1024
_MADE: Final = ("prompt_tokens", "completion_tokens", "queue_s", "model_s", "batch_rows", "finite")
_UNKNOWN_RUN: Final = b"-1,-1,-1,-1"
_RUNS: Final = re.compile(
    rb"-?\d{1,15},-?\d{1,15},-?\d{1,9},(?:-1|0|1)(?:\n-?\d{1,15},-?\d{1,15},-?\d{1,9},(?:-1|0|1))*"
)
_HOUR_US: Final = 3_600_000_000
_PLACE: Final = {name: place for place, name in enumerate(ROW)}
_AT, _TOKENS, _RUN, _SIZE = _PLACE["at"], _PLACE["tokens"], _PLACE["run"], _PLACE["size"]
_ROLE, _QUALITY = _PLACE["role"], _PLACE["quality"]
_NAMED: Final = [(name, _PLACE[name]) for name in NAMES]
_PLAIN: Final = [
    (field.name, _PLACE[field.name], field.type)
    for field in OBSERVATIONS
    if field.name in _PLACE and field.name not in NAMES and field.name != "at"
]


class ModelRows:
    """The rows of one model that wait to be written.

    Args:
        model: Whose.

    Attributes:
        rows: How many.
        size: Bytes of memory that they are taken to need.
        since: When the oldest ended, in seconds since the epoch.
        begun: When the first was taken in, in monotonic seconds: what is due is told by that, as clocks may jump.
        awaited: Whether a rollout goes by what feedback says of them: it waits for these files.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.rows = 0
        self.size = 0
        self.begun = time.monotonic()
        self.awaited = False
        self._raw: list[Row] = []
        self._chunks: list[_Chunk] = []
        self._names: dict[str, dict[Any, int]] = {name: {} for name in NAMES}

    @property
    def since(self) -> float:
        return float(self._chunks[0].at[0]) / 1e6 if self._chunks else float(self._raw[0][_AT])

    def add(self, rows: Sequence[Row]) -> None:
        """Take in rows, one at least, in the order in which they ended."""
        self._raw.extend(rows)
        self.rows += len(rows)
        self.size += _size(rows)
        if not self.awaited:
            self.awaited = any(row[_QUALITY] and row[_ROLE] in ("candidate", "shadow") for row in rows)
        if len(self._raw) >= _CHUNK_ROWS:
            self._convert()

    def drop_oldest(self) -> tuple[int, int]:
        """Forget the oldest rows, some at a time; return how many, and their bytes."""
        if not self._chunks:
            self._convert()
        oldest = self._chunks.pop(0)
        self.rows -= oldest.rows
        self.size -= oldest.size
        return oldest.rows, oldest.size

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield the rows of each hour as a table, with the prefix of the keys that they belong below."""
        if self._raw:
            self._convert()
        table, at = self._table(), np.concatenate([chunk.at for chunk in self._chunks])
        hours = at // _HOUR_US
        found = np.unique(hours)
        for hour in found:
            part = table if len(found) == 1 else table.filter(pa.array(hours == hour))
            moment = datetime.fromtimestamp(int(hour) * 3600, UTC)
            yield observations_prefix(self.model) + partition(moment), part

    def _convert(self) -> None:
        rows, self._raw = self._raw, []
        self._chunks.append(_Chunk(rows, self._names))

    def _table(self) -> pa.Table:
        chunks = self._chunks
        columns: dict[str, pa.ChunkedArray | pa.Array] = {
            name: pa.chunked_array([chunk.plain[name] for chunk in chunks], kind) for name, _, kind in _PLAIN
        }
        for name, values in self._names.items():
            places = np.concatenate([chunk.named[name] for chunk in chunks])
            columns[name] = pa.DictionaryArray.from_arrays(
                pa.array(places, mask=places < 0), pa.array([str(value) for value in values], pa.string())
            )
        columns["at"] = pa.array(np.concatenate([chunk.at for chunk in chunks])).cast(OBSERVATIONS.field("at").type)
        for name in _MADE:
            columns[name] = pa.chunked_array([chunk.made[name] for chunk in chunks], OBSERVATIONS.field(name).type)
        return pa.table([columns[field.name] for field in OBSERVATIONS], schema=OBSERVATIONS)


class _Chunk:
    """Some rows as columns.

    Args:
        rows: In the order in which they ended.
        names: The values so far of each column that has few; further ones are added.
    """

    def __init__(self, rows: Sequence[Row], names: dict[str, dict[Any, int]]) -> None:
        self.rows = len(rows)
        self.size = _size(rows)
        columns = list(zip(*rows, strict=True))
        self.at = (np.array(columns[_AT]) * 1e6).astype(np.int64)
        self.named = {name: _places(columns[place], names[name]) for name, place in _NAMED}
        self.plain = {name: _plain(columns[place], kind) for name, place, kind in _PLAIN}
        self.made = _token_columns(columns[_TOKENS]) | _run_columns(columns[_RUN])


def _token_columns(tokens: tuple[Any, ...]) -> dict[str, pa.Array]:
    if not any(tokens):  # as for all but language models
        return dict.fromkeys(_MADE[:2], pa.nulls(len(tokens), pa.int64()))
    return {
        name: pa.array([None if each is None else each[place] for each in tokens], pa.int64())
        for place, name in enumerate(_MADE[:2])
    }


def _run_columns(runs: tuple[bytes | None, ...]) -> dict[str, pa.Array]:
    """Return what `ModelRun.parse` makes of each, as columns: for all at once, which costs a fifth of that."""
    if not any(runs):
        return {name: pa.nulls(len(runs), OBSERVATIONS.field(name).type) for name in _MADE[2:]}
    text = b"\n".join([run or _UNKNOWN_RUN for run in runs]).replace(b",\n", b",-1\n")
    if text.endswith(b","):
        text += b"-1"
    if not _RUNS.fullmatch(text):
        read = [ModelRun.parse(run) for run in runs]
        return {
            name: pa.array([getattr(run, name) for run in read], OBSERVATIONS.field(name).type) for name in _MADE[2:]
        }
    found = np.fromstring(text.replace(b"\n", b",").decode(), np.int64, sep=",").reshape(-1, 4)
    queue, model, rows, finite = found.T
    return {
        "queue_s": pa.array(queue / 1e6, mask=queue < 0),
        "model_s": pa.array(model / 1e6, mask=model < 0),
        "batch_rows": pa.array(rows.astype(np.int32), mask=rows <= 0),
        "finite": pa.array(finite == 1, mask=finite < 0),
    }


def _size(rows: Sequence[Row]) -> int:
    return sum([row[_SIZE] for row in rows])


def _are_alike(column: tuple[Any, ...]) -> bool:
    """Return whether all values are the same, as in most columns of a moment; where they are not, that is soon seen."""
    return column[0] == column[-1] and column.count(column[0]) == len(column)


def _plain(column: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if not _are_alike(column):
        return pa.array(column, kind)
    if column[0] is None:
        return pa.nulls(len(column), kind)
    return pa.repeat(pa.scalar(column[0], kind), len(column))


def _places(column: tuple[Any, ...], known: dict[Any, int]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the place of each value among the known ones, -1 for None; new values become known."""
    first = column[0]
    alike = _are_alike(column)
    for value in (first,) if alike else set(column):
        if value is not None and value not in known:
            known[value] = len(known)
    if alike:
        return np.full(len(column), known.get(first, -1), np.int32)
    return np.array([known.get(value, -1) for value in column], np.int32)
