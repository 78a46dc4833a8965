"""Requests of many rows: an envelope of rows in, an envelope of their answers out.

A gateway sends what one request of a tensor protocol holds as one envelope. Its rows go to the workers as many at once
as the version takes in one call, and no further: rows that a batch answered with an error, or that a batch lost,
are asked again one by one, so that one bad row fails alone.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from starlette.requests import Request

from marway.deadline import Deadline
from marway.errors import InvalidRequest, ModelError
from marway.records import ServingSettings
from marway.resolve import Resolved
from marway.wire.envelope import KEY, ROWS_CONTENT_TYPE, ROWS_MAX, Answer, Row, decode_rows, mime_type
from marway_sidecar.adapters.base import NotLoaded
from marway_sidecar.pool import ModelPool
from marway_sidecar.rows import passed_headers
from marway_sidecar.tensors import decode_tensor
from marway_sidecar.threads import Threads

__all__ = ["ManyRows", "holds_rows", "rows_of"]

_RUNNERS: Final = 4
"""Calls for one request at a time: more than one, so that workers share its rows; few, so that it cannot fill the
queue that others wait in."""
_CONTENT_TYPE_MAX: Final = 200

Batch = list[tuple[int, Row]]
"""Rows for one call, each with its place in the request."""


def holds_rows(request: Request) -> bool:
    """Return whether the request's body is an envelope of rows."""
    return mime_type(request.headers.get("content-type")).lower() == ROWS_CONTENT_TYPE


def rows_of(request: Request, body: bytes, *, request_id: str) -> list[Row]:
    """Return the rows that ``body`` holds, with the headers of the request beside their own.

    Whoever sent it: a row gets here what a request of its own would have got, and nothing else.

    Raises:
        InvalidRequest: It is no envelope, holds no rows or too many, or one that no request could have made.
    """
    try:
        sent = decode_rows(body)
    except ValueError as exc:
        raise InvalidRequest(f"the body is no envelope of rows: {exc}") from exc
    if not 1 <= len(sent) <= ROWS_MAX:
        raise InvalidRequest(f"the envelope holds {len(sent)} rows: send 1 to {ROWS_MAX}")
    shared = passed_headers(request.headers, request_id)
    for of_the_envelope in ("content-type", "content-length"):
        shared.pop(of_the_envelope, None)
    rows = []
    for index, row in enumerate(sent):
        if row.stream:
            raise InvalidRequest(f"row {index} asks for a stream: rows that stream come alone, each as its own request")
        if not row.parts:
            raise InvalidRequest(f"row {index} has no parts")
        for part in row.parts:
            if part.name == KEY:
                raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")
            _check_content_type(part.content_type, index)
        content_type = row.headers.get("content-type")
        _check_content_type(content_type, index)
        headers = dict(shared) if content_type is None else {**shared, "content-type": content_type}
        rows.append(Row(request_id if len(sent) == 1 else f"{request_id}/{index}", row.parts, headers))
    return rows


class ManyRows:
    """The answers to the rows of one request.

    Args:
        pool: Has the version loaded.
        threads: Where tensors are decoded.
        resolved: The version.
        deadline: When the caller gives up.

    Attributes:
        accepted: Whether any of the rows went to the model server.
    """

    def __init__(self, pool: ModelPool, threads: Threads, resolved: Resolved, deadline: Deadline) -> None:
        self._pool = pool
        self._threads = threads
        self._resolved = resolved
        self._deadline = deadline
        self._calls = 0
        self._pending: deque[Batch] = deque()
        self._answers: dict[int, Answer] = {}

    @property
    def accepted(self) -> bool:
        return self._calls > 0

    async def ask(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers in the order of ``rows``; what failed is an answer of kind "error".

        Raises:
            MarwayError: As `ModelPool.lease` and `ModelServer.predict`, for all rows: no row of it failed by itself.
        """
        self._pending.extend(_batches(rows, self._resolved.serving))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(_RUNNERS, len(self._pending))):
                    group.create_task(self._run(), name=f"rows-{number}")
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        return [await self._plain(self._answers[index]) for index in range(len(rows))]

    async def _run(self) -> None:
        while self._pending:
            batch = self._pending.popleft()
            try:
                answers = await self._call([row for _, row in batch])
            except ModelError as exc:
                answers = [Answer(exc.status, exc.message.encode(), "error")] * len(batch)
            for (index, row), answer in zip(batch, answers, strict=True):
                if answer.kind == "error" and len(batch) > 1:
                    self._pending.append([(index, row)])
                else:
                    self._answers[index] = answer

    async def _call(self, rows: list[Row]) -> list[Answer]:
        record, serving = self._resolved.record, self._resolved.serving
        for attempt in (1, 2):
            async with self._pool.lease(record, serving, self._deadline) as lease:
                self._calls += 1
                try:
                    return await lease.server.predict(lease.model, rows, self._deadline)
                except NotLoaded:
                    self._calls -= 1  # nothing of it was run: load the version again, once
                    if attempt == 2:
                        raise
        raise AssertionError

    async def _plain(self, answer: Answer) -> Answer:
        """Return an answer that any reader of the envelope understands: a saved tensor as JSON, no status of fancy."""
        if not 200 <= answer.status <= 599:
            return Answer(500, f"the handler set the status {answer.status}".encode(), "error")
        if answer.kind != "tensor":
            return answer
        try:
            tensor = await self._threads.run(decode_tensor, answer.body)
        except ValueError as exc:
            return Answer(500, f"the handler's tensor cannot be passed on: {exc}".encode(), "error")
        return Answer(
            answer.status, json.dumps(tensor["values"]).encode(), "json", "application/json", dict(answer.headers)
        )


def _batches(rows: Sequence[Row], serving: ServingSettings) -> Iterator[Batch]:
    """Yield the rows in their order, as many at once as one call may have."""
    most = 1 if serving.streaming else serving.max_batch_rows
    batch: Batch = []
    size = 0
    for index, row in enumerate(rows):
        own = sum(len(part.value) for part in row.parts)
        if batch and (len(batch) == most or size + own > serving.max_batch_bytes):
            yield batch
            batch, size = [], 0
        batch.append((index, row))
        size += own
    if batch:
        yield batch


def _check_content_type(text: str | None, index: int) -> None:
    if text is not None and not (text.isascii() and text.isprintable() and len(text) <= _CONTENT_TYPE_MAX):
        raise InvalidRequest(f"row {index} has a content type that no header could carry")
