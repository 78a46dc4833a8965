"""Requests of many rows: their rows into the version's queue, and the answers into one envelope.

The rows wait as many together as the version takes in one call, and go with the rows of others where there is room.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from marway.deadline import Deadline
from marway.errors import ModelError
from marway.records import ServingSettings
from marway.resolve import Resolved
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Row, encode_answers
from marway.wire.headers import Outcome
from marway_sidecar.api.answers import fault_of, model_error
from marway_sidecar.api.body_budget import HeldBytes
from marway_sidecar.api.call import Call, log_failure
from marway_sidecar.api.rows import INLINE_BYTES
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.tensors import decode_tensor
from marway_sidecar.scheduler import Job
from marway_sidecar.threads import Threads

__all__ = ["ask_rows", "envelope_of"]

_CALLS: Final = 4
"""Calls for one request at a time: more than one, so that workers share its rows; few, so that it cannot fill the
queue that others wait in."""


async def ask_rows(
    call: Call, pool: ModelPool, resolved: Resolved, rows: Sequence[Row], deadline: Deadline, held: HeldBytes | None
) -> list[Answer]:
    """Return the answers in the order of ``rows``; what failed is an answer of kind "error".

    Args:
        call: The request, which is told whether any of its rows went to the model server.
        pool: Has the version loaded.
        resolved: The version.
        rows: At least one.
        deadline: When the caller gives up.
        held: Memory that is held for the body.

    Raises:
        MarwayError: As `ModelPool.submit`, for all rows: no row of it failed by itself.
    """
    record, serving = resolved.record, resolved.serving
    batches = _batches(rows, serving)
    answers: dict[int, list[Answer]] = {}
    begun: dict[asyncio.Future[list[Answer]], tuple[int, Job, Callable[[], None]]] = {}
    try:
        while True:
            for first, batch in islice(batches, _CALLS - len(begun)):
                job = Job(batch, deadline, group=call.group, body=held)
                begun[job.future] = first, job, pool.submit(record, serving, job)
            if not begun:
                return [answer for first in sorted(answers) for answer in answers[first]]
            done = {each for each in begun if each.done()}
            if not done and len(begun) > 1:
                done, _ = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            future = next(iter(done or begun))
            first, job, end = begun[future]
            try:
                answers[first] = await future
            except ModelError as exc:
                answers[first] = [Answer(exc.status, exc.message.encode(), "error")] * len(job.rows)
            del begun[future]
            end()
            call.accepted = call.accepted or job.started
    finally:
        for future, (_, job, end) in begun.items():
            if not (future.cancel() or future.cancelled()):
                future.exception()  # asked for, so that asyncio does not complain
            end()
            call.accepted = call.accepted or job.started


async def envelope_of(answers: Sequence[Answer], call: Call, resolved: Resolved, threads: Threads) -> Answer:
    """Return the envelope of a request's answers, those that failed among them.

    Any reader of the envelope understands them: a saved tensor is JSON, no status or header is one that HTTP has not.

    Args:
        answers: In the order of the rows.
        call: The request, for which failures are logged.
        resolved: The version.
        threads: Where tensors are decoded.
    """
    plain = [await _plain(answer, threads) for answer in answers]
    errors = [answer for answer in plain if answer.kind == "error"]
    if errors:
        log_failure(call, model_error(errors[0], resolved), outcome=Outcome.MODEL_ERROR, rows=len(errors))
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
