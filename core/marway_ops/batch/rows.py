"""How rows are read, each with what is sent of it."""

from __future__ import annotations

import base64
import csv
import io
import json
import mimetypes
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, BinaryIO, Final, NamedTuple

from marway.errors import InvalidInput, clip
from marway_ops.batch.job import Job
from marway_ops.batch.sources import Source

__all__ = ["Question", "Raw", "json_bytes", "question_of", "read_rows"]

_LINE_MAX: Final = 64 * 1024 * 1024
"""As the largest body that a gateway takes by default."""
_PARQUET_ROWS: Final = 1024
_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
"""What JSON has for a number: `007` is none, and stays text."""


class Raw(NamedTuple):
    """A row as it was read.

    Attributes:
        number: From 1, counted in its input.
        size: Bytes that it takes.
        value: A line, the cells of a row by column, or a whole object.
        position: Which part of the input has been read behind it, from 0 to 1.
    """

    number: int
    size: int
    value: bytes | Mapping[str, Any] | Source
    position: float


@dataclass(frozen=True, slots=True)
class Question:
    """What is sent of a row.

    Attributes:
        file: The object that it is of.
        row: Its number there.
        body, content_type: What is sent.
        kept: What of the row goes with the answer, by column.
        fault: Why nothing can be sent; None where it can.
    """

    file: str
    row: int
    body: bytes = b""
    content_type: str = _JSON
    kept: tuple[tuple[str, Any], ...] = ()
    fault: str | None = None


def read_rows(job: Job, sources: Sequence[Source]) -> Iterator[tuple[int, Raw]]:
    """Yield each row with which input it is of, lazily, as far as the job's limit. Blocks.

    Raises:
        InvalidInput: An input is not of the job's format, or cannot be read.
    """
    left = job.limit
    for index, rows in enumerate(_inputs(job, sources)):
        for raw in rows:
            if left == 0:
                return
            yield index, raw
            left = None if left is None else left - 1


def _inputs(job: Job, sources: Sequence[Source]) -> Iterator[Iterator[Raw]]:
    if job.input_format == "files":
        yield (
            Raw(number, source.input.size, source, number / len(sources))
            for number, source in enumerate(sources, start=1)
        )
        return
    read = {"jsonl": _lines, "csv": _csv, "parquet": _parquet}[job.input_format]
    for source in sources:
        yield read(source)


def _lines(source: Source) -> Iterator[Raw]:
    whole = max(1, source.input.size)
    done = 0
    with source.open() as handle:
        number = 0
        while line := handle.readline(_LINE_MAX + 1):
            number += 1
            done += len(line)
            if len(line) > _LINE_MAX:
                raise InvalidInput(
                    f"{source.input.name}, line {number}: longer than {_LINE_MAX} bytes; is it JSON Lines?"
                )
            if line := line.strip():
                yield Raw(number, len(line), line, done / whole)


def _csv(source: Source) -> Iterator[Raw]:
    whole = max(1, source.input.size)
    with source.open() as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
        try:
            csv.field_size_limit(_LINE_MAX)  # its own is 128 KiB
            reader = csv.DictReader(text, strict=True)
            if len(set(reader.fieldnames or ())) != len(reader.fieldnames or ()):
                raise InvalidInput(f"{source.input.name}: two columns have the same name")
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    raise InvalidInput(
                        f"{source.input.name}, line {reader.line_num}: it has not as many cells as the first line"
                    )
                size = sum(len(cell) for cell in row.values())
                yield Raw(number, size, row, min(1.0, handle.tell() / whole))
        except (csv.Error, UnicodeDecodeError) as exc:
            raise InvalidInput(f"{source.input.name} is no CSV of UTF-8: {exc}") from exc
        finally:
            text.detach()


def _parquet(source: Source) -> Iterator[Raw]:
    import pyarrow  # of the extra `observations`: only who reads such files needs it
    import pyarrow.parquet

    with source.open() as handle:
        try:
            file = pyarrow.parquet.ParquetFile(handle)
            whole, number = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                size = batch.nbytes // max(1, batch.num_rows)
                for row in batch.to_pylist():
                    number += 1
                    yield Raw(number, size, row, number / whole)
        except pyarrow.ArrowException as exc:
            raise InvalidInput(f"{source.input.name} is no Parquet file: {clip(str(exc), 200)}") from exc


def question_of(raw: Raw, source: Source, job: Job) -> Question:
    """Return what is sent of a row. Blocks where the row is a file."""
    if job.input_format == "files":
        assert not isinstance(raw.value, (bytes, Mapping))
        with raw.value.open() as handle:
            body = _read(handle)
        name = raw.value.input.name
        kind = job.content_type or mimetypes.guess_type(name)[0] or _BYTES
        return Question(name, raw.number, body, kind, fault=None if body else "the file is empty")
    file = source.input.name
    assert isinstance(raw.value, (bytes, Mapping))
    try:
        row = json.loads(raw.value) if isinstance(raw.value, bytes) else raw.value
    except (ValueError, RecursionError) as exc:
        return Question(file, raw.number, fault=f"the line is no JSON: {exc}")
    wanted = [name for name in (job.column, *job.keep) if name is not None]
    missing = [name for name in wanted if not isinstance(row, Mapping) or name not in row]
    if missing:
        there = f"it has {', '.join(map(str, row))}" if isinstance(row, Mapping) else "it is no object"
        return Question(file, raw.number, fault=clip(f"the row has no {', '.join(missing)}: {there}", 300))
    kept = tuple((name, row[name]) for name in job.keep)
    if job.column is not None:
        try:
            body, kind = _alone(row[job.column])
        except UnicodeEncodeError:
            return Question(file, raw.number, kept=kept, fault=f"its {job.column} has half a character (a surrogate)")
    elif isinstance(raw.value, bytes):
        body, kind = raw.value, _JSON
    else:
        values = {name: _cell(value) for name, value in raw.value.items()} if job.input_format == "csv" else raw.value
        body, kind = _json(values), _JSON
    fault = None if body else f"its {job.column} is empty"
    return Question(file, raw.number, body, job.content_type or kind, kept, fault)


def _read(handle: BinaryIO) -> bytes:
    return handle.read()


def _alone(value: object) -> tuple[bytes, str]:
    """Return one field as a body: text as text, bytes as they are, anything else as JSON."""
    if isinstance(value, str):
        return value.encode(), "text/plain"
    if isinstance(value, bytes):
        return value, _BYTES
    return _json(value), _JSON


def _cell(text: str) -> object:
    """Return a cell of CSV, which has text alone, as JSON: what is written as JSON's numbers are is one."""
    if not text:
        return None
    return json.loads(text) if _NUMBER.fullmatch(text) else text


def _json(value: object) -> bytes:
    return json_bytes(value, default=_plain)


def json_bytes(value: object, *, default: Callable[[Any], object] | None = None) -> bytes:
    """Return a value as JSON in UTF-8; half a character, which only an escape can give, stays an escape."""
    try:
        return json.dumps(value, ensure_ascii=False, default=default).encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=default).encode()


def _plain(value: object) -> object:
    """Return a value of Parquet that JSON does not have."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value)
