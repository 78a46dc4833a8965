"""Reads training data: JSONL, CSV, Parquet, or rows as Python has them; an even sample of the rows is given."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from marway.answers.encoding import answer_json
from marway.errors import InvalidInput, clip
from marway.features.pictures import is_picture
from marway.features.sampling import Sample
from marway.features.walking import number_or_text
from marway.redaction import Side
from marway_archiver.publishing.register import warn

__all__ = ["READERS", "SIDES", "Row", "rows_given"]

SIDES: Final[tuple[Side, ...]] = ("input", "output")
Row = Mapping[Side, Any]
"""What a row has of `input` and `output`: a JSON value, a text or the bytes of a picture each."""

_LINE_MAX: Final = 16 * 1024 * 1024
_FIELD_MAX: Final = 1024 * 1024
_FILE_MAX: Final = 64 * 1024 * 1024
_EXAMPLE: Final = {"input", "file", "output", "content_type", "status"}
"""Fields of a line of `marway pack --examples`, which is taken here, too."""


def rows_given(values: Iterable[Any]) -> Iterator[Row]:
    """Yield an even sample of rows that are Python values: what JSON has, arrays and numbers of numpy and torch, bytes.

    Raises:
        InvalidInput: They are one mapping, or a row is none of these.
    """
    if isinstance(values, bytes | Mapping):
        raise InvalidInput("training data is a file or a sequence of rows: put a single row into a list")
    sample: Sample[tuple[int, Any]] = Sample()
    for number, value in enumerate(values, 1):
        sample.add((number, value), 0)
    for number, value in sample:
        if isinstance(value, bytes):
            yield {"input": _body(value)}
            continue
        try:
            plain = json.loads(answer_json(value, nonfinite="null"))
        except ValueError as exc:
            raise InvalidInput(f"row {number} of the training data: {exc}") from exc
        yield {side: plain[side] for side in SIDES if side in plain} if _has_sides(plain) else {"input": plain}


def _has_sides(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and value.keys() <= set(SIDES)


def _jsonl(path: Path) -> Iterator[Row]:
    sample: Sample[tuple[int, bytes]] = Sample()
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LINE_MAX + 1):
            number += 1
            if len(line) > _LINE_MAX:
                raise InvalidInput(f"{path}:{number}: has more than {_LINE_MAX} bytes: give one JSON value a line")
            if line.strip():
                sample.add((number, line), len(line))
    for number, line in sample:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise InvalidInput(f"{path}:{number}: is not JSON: {clip(str(exc), 120)}") from exc
        yield _row_of(path, number, value)


def _row_of(path: Path, number: int, value: Any) -> Row:
    """Return what a line holds: `input` and `output`, or the input itself."""
    if not isinstance(value, dict) or not value.keys() <= _EXAMPLE or not value.keys() & {*SIDES, "file"}:
        return {"input": value}
    row: dict[Side, Any] = {side: value[side] for side in SIDES if side in value}
    if (name := value.get("file")) is not None:
        if not isinstance(name, str) or "input" in value:
            raise InvalidInput(
                f"{path}:{number}: an object with either 'input' or 'file', the name of a file, is wanted"
            )
        file = path.parent / name
        if file.stat().st_size > _FILE_MAX:
            raise InvalidInput(f"{path}:{number}: {name} has more than {_FILE_MAX} bytes")
        row["input"] = _body(file.read_bytes())
    return row


def _body(data: bytes) -> Any:
    """Return what a request's bytes are: a picture, JSON, or text; of others, which stay bytes, nothing is known."""
    if is_picture(data):
        return data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _csv(path: Path) -> Iterator[Row]:
    sample: Sample[list[str]] = Sample()
    csv.field_size_limit(_FIELD_MAX)
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline(_FIELD_MAX)
        delimiter = max(",\t;", key=head.count)
        file.seek(0)
        lines = csv.reader(file, delimiter=delimiter)
        try:
            names = next(lines, [])
            row_of = _by_column(path, names)
            for cells in lines:
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise InvalidInput(
                        f"{path}:{lines.line_num}: has {len(cells)} cells, and the head has {len(names)} names"
                    )
                sample.add(cells, sum(map(len, cells)) + 64 * len(cells))
        except csv.Error as exc:
            raise InvalidInput(f"{path}:{lines.line_num}: is no CSV: {clip(str(exc), 120)}") from exc
    for cells in sample:
        yield row_of([number_or_text(cell) if cell else None for cell in cells])


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as exc:
        raise InvalidInput(
            f"{path}: reading Parquet needs the package 'pyarrow': pip install 'marway[observations]', or give the "
            "rows as JSONL or CSV"
        ) from exc
    sample: Sample[list[Any]] = Sample()
    try:
        with pq.ParquetFile(path) as file:
            row_of = _by_column(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=4096):
                drawn = [sample.drawn() for _ in range(batch.num_rows)]
                wanted = [place for place, number in enumerate(drawn) if number is not None]
                taken = batch.take(pa.array(wanted, pa.int64()))
                size = taken.nbytes // max(1, len(wanted)) + 64 * taken.num_columns
                columns = [column.to_pylist() for column in taken.columns]
                for place, values in zip(wanted, zip(*columns, strict=True), strict=True):
                    sample.keep(drawn[place] or 0.0, list(values), size)
    except pa.ArrowException as exc:
        raise InvalidInput(f"{path} is no Parquet that can be read: {clip(' '.join(str(exc).split()), 200)}") from exc
    for cells in sample:
        yield row_of([_plain(cell) for cell in cells])


def _plain(value: Any) -> Any:
    """Return a value of Parquet's as JSON has it; bytes stay, also within `{"bytes", "path"}` of Hugging Face."""
    if isinstance(value, dict):
        if value.keys() == {"bytes", "path"} and isinstance(value["bytes"], bytes):
            return value["bytes"]
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value


def _by_column(path: Path, names: Sequence[str]) -> Callable[[Sequence[Any]], Row]:
    """Return what makes a row of a table's cells.

    Raises:
        InvalidInput: There are no columns, two of one name, or `input` beside `input.age`.
    """
    if not names or not any(names):
        raise InvalidInput(f"{path} has no head: the first line names the columns")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise InvalidInput(f"{path} has two columns called {clip(twice, 60)!r}")
    of_side = [_side_of(name) for name in names]
    if not any(of_side):
        return lambda cells: {
            "input": {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
        }
    others = [name for name, side in zip(names, of_side, strict=True) if side is None]
    if others:
        warn([f"{path}: as there are columns of input and output, others are left out: {clip(', '.join(others), 200)}"])
    for side in SIDES:
        if side in names and sum(each is not None and each[0] == side for each in of_side) > 1:
            raise InvalidInput(
                f"{path} has a column {side!r} and others below it, such as {side}.x: give one or the others"
            )

    def row(cells: Sequence[Any]) -> Row:
        found: dict[Side, Any] = {}
        for side_and_field, cell in zip(of_side, cells, strict=True):
            if side_and_field is None or cell is None:
                continue
            side, field = side_and_field
            if field is None:
                found[side] = cell
            else:
                found.setdefault(side, {})[field] = cell
        return found

    return row


def _input_row(names: Sequence[str], cells: Sequence[Any]) -> Row:
    return {"input": {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}}


def _side_of(name: str) -> tuple[Side, str | None] | None:
    for side in SIDES:
        if name == side:
            return side, None
        if name.startswith(f"{side}."):
            return side, name.removeprefix(f"{side}.")
    return None


READERS: Final[Mapping[str, Callable[[Path], Iterator[Row]]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
"""What reads a file, by the end of its name; each raises `InvalidInput` where it cannot."""
