"""Answers in pieces: passed on as the handler sends them."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, ModelError
from marway.resolve import Resolved
from marway.wire.envelope import Row
from marway_http.eager import in_task
from marway_http.http1.request import Request
from marway_sidecar.api.answers import BODILESS, headers_of, model_error
from marway_sidecar.api.bodies import begin_answer
from marway_sidecar.api.call import Call
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.memory.body_budget import HeldBytes
from marway_sidecar.scheduler import StreamJob

__all__ = ["stream_answer"]


async def stream_answer(
    call: Call,
    channel: Request,
    pool: ModelPool,
    resolved: Resolved,
    row: Row,
    deadline: Deadline,
    held: HeldBytes | None,
    *,
    drain: Drain,
) -> None:
    """Send the pieces of the answer to ``row``, loading the version and waiting in its queue first if need be.

    Args:
        call: The request.
        channel: Its own.
        pool: Has the version loaded.
        resolved: The version, which is declared streaming.
        row: What its handler gets.
        deadline: When the last piece has to be read.
        held: Memory that is held for the body.
        drain: Says whether the answer closes its connection.

    Raises:
        MarwayError: As `ModelPool.stream`; the answer may have begun.
    """
    await in_task()
    job = StreamJob(row, deadline, group=call.group, body=held)
    pieces = pool.stream(resolved.record, resolved.serving, job)
    try:
        # A client that reads too slowly holds the stream up, and must not do so beyond the deadline.
        async with aclosing(pieces), asyncio.timeout(None) as limit:
            async for piece in pieces:
                if piece.kind == "error":
                    raise model_error(piece, resolved)
                if not channel.started:
                    limit.reschedule(asyncio.get_running_loop().time() + deadline.left_s())
                    headers = headers_of(piece, resolved, call.ids, time.monotonic() - (job.started_at or job.since))
                    await begin_answer(channel, piece.status, headers, close=drain.draining)
                if piece.body and piece.status not in BODILESS:
                    await channel.send({"type": "http.response.body", "body": piece.body, "more_body": True})
    except TimeoutError as exc:
        raise DeadlineExceeded("the deadline passed before the last piece of the answer was read") from exc
    finally:
        call.accepted = job.started
    if not channel.started:
        raise ModelError(
            "the handler ended without an answer", model=resolved.record.name, version=resolved.record.version
        )
    await channel.send({"type": "http.response.body", "body": b"", "more_body": False})
