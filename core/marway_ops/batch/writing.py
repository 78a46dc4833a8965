"""How answers and failures are written as objects."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from typing import Any

from marway.client.answers import value_of
from marway.errors import MarwayError
from marway_ops.batch.job import OWN_COLUMNS, OutputFormat
from marway_ops.batch.requests import Answer, Failure
from marway_ops.batch.rows import json_bytes

__all__ = ["written_answers", "written_failures"]


def written_answers(answers: Sequence[Answer], kind: OutputFormat) -> bytes:
    """Return answers as one object of a format, in the order of their rows. Blocks."""
    if kind == "jsonl":
        return b"".join(
            _line({**_own(each), "prediction": _value(each), **dict(each.question.kept)}) for each in answers
        )
    rows = [{**_own(each), "prediction": _text(_value(each)), **dict(each.question.kept)} for each in answers]
    columns = [*OWN_COLUMNS, *(name for name, _ in answers[0].question.kept)]
    return _csv(rows, columns) if kind == "csv" else _parquet(rows, columns)


def written_failures(failures: Sequence[Failure]) -> bytes:
    """Return failures as JSON Lines, in the order of their rows."""
    return b"".join(
        _line(
            {
                "file": each.question.file,
                "row": each.question.row,
                "reason": each.reason,
                "code": each.code,
                "status": each.status,
                "prediction_id": each.prediction_id,
                "request_id": each.request_id,
                **dict(each.question.kept),
            }
        )
        for each in failures
    )


def _own(answer: Answer) -> dict[str, Any]:
    return {"file": answer.question.file, "row": answer.question.row, "prediction_id": answer.prediction_id}


def _value(answer: Answer) -> Any:
    """Return an answer as JSON, text, or `{"b64": …}` where it is neither."""
    try:
        value = value_of(answer.body, answer.content_type or "application/json")
    except MarwayError:  # it is not what it says
        value = answer.body
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _text(value: Any) -> str:
    """Return an answer for a cell: text as it is, anything else as JSON."""
    return _whole(value) if isinstance(value, str) else json_bytes(value).decode()


def _whole(text: str) -> str:
    """Return a text with half a character, which only an escape in JSON can give, as that escape."""
    return text.encode(errors="backslashreplace").decode()


def _line(document: dict[str, Any]) -> bytes:
    return json_bytes(document, default=str) + b"\n"


def _csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if row[name] is None else row[name] for name in columns})
    return text.getvalue().encode(errors="backslashreplace")  # half a character that JSON had escaped


def _parquet(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> bytes:
    import pyarrow  # of the extra `observations`: only who writes such files needs it
    import pyarrow.parquet

    kinds: dict[str, pyarrow.DataType] = {name: pyarrow.string() for name in OWN_COLUMNS}
    kinds["row"] = pyarrow.int64()
    # What is kept is written as text: each part must have the same types, and no part sees the others' values.
    arrays = [
        pyarrow.array([_kept(row[name], kinds.get(name)) for row in rows], kinds.get(name, pyarrow.string()))
        for name in columns
    ]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(columns)), buffer, compression="zstd")
    return buffer.getvalue()


def _kept(value: Any, own: object) -> Any:
    if own is not None or value is None:
        return value
    return _text(value if isinstance(value, (str, dict, list)) else str(value))
