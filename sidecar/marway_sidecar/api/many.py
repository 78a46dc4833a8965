"""Requests of many rows: an envelope of rows in, an envelope of their answers out.

A gateway sends what one request of a tensor protocol holds as one envelope. Its rows wait in the version's queue, as
many together as the version takes in one call, and go with the rows of others where there is room.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from marway.deadline import Deadline
from marway.errors import InvalidRequest, ModelError
from marway.records import ServingSettings
from marway.resolve import Resolved
from marway.wire.answer_headers import content_type_fault, header_fault, status_fault
from marway.wire.envelope import KEY, ROWS_CONTENT_TYPE, ROWS_MAX, Answer, Row, decode_rows, mime_type
from marway.wire.headers import JSON_NONFINITE
from marway_sidecar.api.body_budget import HeldBytes
from marway_sidecar.api.rows import INLINE_BYTES, passed_headers
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.tensors import decode_tensor
from marway_sidecar.scheduler import Job
from marway_sidecar.threads import Threads

__all__ = ["ManyRows", "holds_rows", "rows_of"]

_RUNNERS: Final = 4
"""Calls for one request at a time: more than one, so that workers share its rows; few, so that it cannot fill the
queue that others wait in."""
_CONTENT_TYPE_MAX: Final = 200


@lru_cache(maxsize=256)
def holds_rows(content_type: str | None) -> bool:
    """Return whether a body of this content type is an envelope of rows."""
    return mime_type(content_type).lower() == ROWS_CONTENT_TYPE


def rows_of(headers: Mapping[str, str], body: bytes, *, request_id: str) -> list[Row]:
    """Return the rows that ``body`` holds, with the request's ``headers`` beside their own.

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
    shared = passed_headers(headers, request_id)
    for of_the_envelope in ("content-type", "content-length"):
        shared.pop(of_the_envelope, None)
    shared[JSON_NONFINITE] = "allow"  # whether the protocol has such numbers, whoever sent the envelope knows
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
        own = dict(shared) if content_type is None else {**shared, "content-type": content_type}
        rows.append(Row(request_id if len(sent) == 1 else f"{request_id}/{index}", row.parts, own))
    return rows


class ManyRows:
    """The answers to the rows of one request.

    Args:
        pool: Has the version loaded.
        threads: Where tensors are decoded.
        resolved: The version.
        deadline: When the caller gives up.
        group, body: As `Job` has them.

    Attributes:
        accepted: Whether any of the rows went to the model server.
    """

    def __init__(
        self,
        pool: ModelPool,
        threads: Threads,
        resolved: Resolved,
        deadline: Deadline,
        *,
        group: str,
        body: HeldBytes | None,
    ) -> None:
        self._pool = pool
        self._threads = threads
        self._resolved = resolved
        self._deadline = deadline
        self._group = group
        self._body = body
        self.accepted = False

    async def ask(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers in the order of ``rows``; what failed is an answer of kind "error".

        Raises:
            MarwayError: As `ModelPool.predict`, for all rows: no row of it failed by itself.
        """
        pending = _batches(rows, self._resolved.serving)
        answers: list[Answer | None] = [None] * len(rows)

        async def run() -> None:
            for first, batch in pending:
                for index, answer in enumerate(await self._call(batch), first):
                    answers[index] = answer

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_RUNNERS):
                    group.create_task(run(), name=f"rows-{number}")
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        return [await self._plain(answer) for answer in answers if answer is not None]

    async def _call(self, rows: list[Row]) -> list[Answer]:
        job = Job(rows, self._deadline, group=self._group, body=self._body)
        try:
            return await self._pool.predict(self._resolved.record, self._resolved.serving, job)
        except ModelError as exc:
            return [Answer(exc.status, exc.message.encode(), "error")] * len(rows)
        finally:
            self.accepted = self.accepted or job.started

    async def _plain(self, answer: Answer) -> Answer:
        """Return an answer that any reader of the envelope understands: a saved tensor as JSON, no status of fancy."""
        fault = status_fault(answer.status) or content_type_fault(answer.content_type) or header_fault(answer.headers)
        if fault is not None:
            return Answer(500, fault.encode(), "error")
        if answer.kind != "tensor":
            return answer
        try:
            values = await self._threads.run(_tensor_json, answer.body)
        except ValueError as exc:
            return Answer(500, f"the handler's tensor cannot be passed on: {exc}".encode(), "error")
        return Answer(answer.status, values, "json", "application/json", dict(answer.headers))


def _tensor_json(saved: bytes) -> bytes:
    """Return the numbers of a saved tensor as JSON, a little at a time: other threads get their turn between."""
    values = decode_tensor(saved)["values"]
    if len(saved) <= INLINE_BYTES:
        return json.dumps(values).encode()
    return "".join(json.JSONEncoder().iterencode(values)).encode()


def _batches(rows: Sequence[Row], serving: ServingSettings) -> Iterator[tuple[int, list[Row]]]:
    """Yield the rows in their order, as many at once as one call may have, with the place of the first of them."""
    most = 1 if serving.streaming else serving.max_batch_rows
    batch: list[Row] = []
    size = first = 0
    for index, row in enumerate(rows):
        own = sum(len(part.value) for part in row.parts)
        if batch and (len(batch) == most or size + own > serving.max_batch_bytes):
            yield first, batch
            batch, size, first = [], 0, index
        batch.append(row)
        size += own
    if batch:
        yield first, batch


def _check_content_type(text: str | None, index: int) -> None:
    if text is not None and not (text.isascii() and text.isprintable() and len(text) <= _CONTENT_TYPE_MAX):
        raise InvalidRequest(f"row {index} has a content type that no header could carry")
