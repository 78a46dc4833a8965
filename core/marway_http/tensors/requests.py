"""A request of a tensor protocol as one envelope of rows, and the envelope of their answers as its answer.

Both directions are plain functions of what they are given, so that they can run in another process
(`marway_gateway.conversion`). Each protocol's module has the `ReadRequest` functions of its requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from marway.errors import InvalidRequest, MarwayError
from marway.records import VersionRecord
from marway.resolve.resolved import Resolved
from marway.wire.envelope import PARTS_MAX, Row, decode_answers, encode_rows
from marway_http.tensors.outputs import values_of

__all__ = ["ReadRequest", "Reading", "Rendered", "Rendering", "prepare", "rendered"]

Rendered = tuple[bytes, list[tuple[str, str]]]
"""A body and its content headers."""
Render = Callable[[list[Any]], Rendered]
"""Makes an answer of what the handler answered to each row."""
Rendering = tuple[Render, int]
"""That of a request, and of how many rows it is."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request asks for.

    Attributes:
        rows: Its rows.
        render: Makes its answer; it holds nothing of the request that is large.
        timeout_s: How long the caller waits, from when the request came, where the body says so.
        sequence: Headers that say which sequence it is of, where the body does.
    """

    rows: Sequence[Row]
    render: Render
    timeout_s: float | None = None
    sequence: Mapping[str, str] = field(default_factory=dict)


ReadRequest = Callable[[bytes, str | None, Resolved], Reading]
"""Reads what a body asks of a version; the text is `Inference-Header-Content-Length`, of v2 over REST.

It raises `InvalidRequest` for what is no request of its protocol, or none that the version takes.
"""


def prepare(read: ReadRequest, body: bytes, header_length: str | None, version: Resolved) -> tuple[bytes, int, Reading]:
    """Return the envelope of the rows that ``body`` holds, how many they are, and the request without them.

    Raises:
        InvalidRequest: As ``read``; or its rows have more parts than a pod takes.
    """
    reading = read(body, header_length, version)
    rows = reading.rows
    parts = sum(len(row.parts) for row in rows)
    if parts > PARTS_MAX:
        raise InvalidRequest(f"the request's rows have {parts} parts: send {PARTS_MAX} at most, in all rows together")
    return encode_rows(rows), len(rows), replace(reading, rows=())


def rendered(render: Render, data: bytes, count: int, record: VersionRecord) -> Rendered:
    """Return the answer to a request of ``count`` rows, of the envelope of their answers.

    Raises:
        MarwayError: It is none, or not of so many answers.
        ModelError: The handler refused a row, or answered what the protocol cannot carry.
    """
    try:
        answers = decode_answers(data)
    except ValueError as exc:
        raise MarwayError(f"the pod's answers to the request's rows cannot be read: {exc}") from exc
    if len(answers) != count:
        raise MarwayError(f"the pod gave {len(answers)} answers to {count} rows")
    return render(values_of(answers, model=record.name, version=record.version))
