"""Requests of many rows, in an envelope in which a gateway sends what one request of a tensor protocol holds: its rows
into the version's queue, and the answers into one envelope.

The rows wait as many together as the version takes in one call, and go with the rows of others where there is room.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from marway.answers.tensors import decode_tensor
from marway.deadline import Deadline
from marway.errors import InvalidRequest, ModelError
from marway.resolve import Resolved
from marway.serving import ServingSettings
from marway.wire.envelope import ROWS_CONTENT_TYPE, ROWS_MAX, Answer, Row, decode_rows, encode_answers
from marway.wire.headers import JSON_NONFINITE, Outcome
from marway.wire.request import RequestIds
from marway_sidecar.api.answers import fault_of, model_error
from marway_sidecar.api.call import Call, passed_headers
from marway_sidecar.api.failures import log_failure
from marway_sidecar.api.forms import check_name
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.memory.body_budget import HeldBytes
from marway_sidecar.scheduler import Job
from marway_sidecar.scheduler.scheduler import Scheduler
from marway_sidecar.threads import Threads

__all__ = ["INLINE_BYTES", "ask_rows", "envelope_of", "rows_of"]

INLINE_BYTES: Final = 64 * 1024
"""A form or envelope up to this size is read where it is, within a millisecond or few; a larger one in a thread."""
_CONTENT_TYPE_MAX: Final = 200
_CALLS: Final = 4
"""Calls for one request at a time: more than one, so that workers share its rows; few, so that it cannot fill the
queue that others wait in."""


def rows_of(headers: Mapping[str, str], body: bytes, ids: RequestIds) -> list[Row]:
    """Return the rows of an envelope, with the request's ``headers`` beside their own.

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
    shared = passed_headers(headers, ids)
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
            check_name(part)
            _check_content_type(part.content_type, index)
        content_type = row.headers.get("content-type")
        _check_content_type(content_type, index)
        own = dict(shared) if content_type is None else {**shared, "content-type": content_type}
        rows.append(Row(ids.request_id if len(sent) == 1 else f"{ids.request_id}/{index}", row.parts, own))
    return rows


def _check_content_type(text: str | None, index: int) -> None:
    if text is not None and not (text.isascii() and text.isprintable() and len(text) <= _CONTENT_TYPE_MAX):
        raise InvalidRequest(f"row {index} has a content type that no header could carry")


async def ask_rows(
    call: Call, pool: ModelPool, resolved: Resolved, rows: Sequence[Row], deadline: Deadline, held: HeldBytes | None
) -> list[Answer]:
    """Return the answers in the order of ``rows``; what failed is an answer of kind "error".

    There is at least one. The call is told how the model server ran those that went there.

    Raises:
        MarwayError: As `ModelPool.predict`, for all rows: no row of it failed by itself.
    """
    record, serving = resolved.record, resolved.serving
    batches = _batches(rows, serving)
    answers: dict[int, list[Answer]] = {}
    begun: dict[asyncio.Future[list[Answer]], tuple[int, Job, Scheduler]] = {}
    try:
        while True:
            for first, batch in islice(batches, _CALLS - len(begun)):
                job = Job(batch, deadline, group=call.group, body=held, priority=call.priority)
                scheduler = pool.scheduler(record, serving)
                scheduler.submit(job)
                begun[job.future] = first, job, scheduler
            if not begun:
                return [answer for first in sorted(answers) for answer in answers[first]]
            done = {each for each in begun if each.done()}
            if not done and len(begun) > 1:
                done, _ = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            future = next(iter(done or begun))
            first, job, scheduler = begun[future]
            try:
                answers[first] = await future
            except ModelError as exc:
                answers[first] = [Answer(exc.status, exc.message.encode(), "error")] * len(job.rows)
            del begun[future]
            scheduler.leave(job)
            call.take_in(job)
    finally:
        for future, (_, job, scheduler) in begun.items():
            if not (future.cancel() or future.cancelled()):
                future.exception()  # asked for, so that asyncio does not complain
            scheduler.leave(job)
            call.take_in(job)


async def envelope_of(answers: Sequence[Answer], call: Call, resolved: Resolved, threads: Threads) -> Answer:
    """Return the envelope of a request's answers, those that failed among them.

    Any reader of the envelope understands them: a saved tensor is JSON, no status or header is one that HTTP has not.
    Failures are logged for the call.
    """
    plain = [await _plain(answer, threads) for answer in answers]
    errors = [answer for answer in plain if answer.kind == "error"]
    if errors:
        log_failure(
            call,
            model_error(errors[0], resolved),
            outcome=Outcome.MODEL_ERROR,
            serving=resolved.serving,
            rows=len(errors),
        )
    failed = bool(errors) or any(answer.status >= 400 for answer in plain)
    # Whoever keeps answers must not take a failed row's for the model's last word.
    own = {"cache-control": "no-store"} if failed else {}
    return Answer(200, encode_answers(plain), "bytes", ROWS_CONTENT_TYPE, own)


async def _plain(answer: Answer, threads: Threads) -> Answer:
    fault = fault_of(answer)
    if fault is not None:
        return Answer(500, fault.encode(), "error")
    if answer.kind != "tensor":
        return answer
    try:
        values = await threads.run(_tensor_json, answer.body)
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
