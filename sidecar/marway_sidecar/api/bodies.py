"""Bodies over HTTP. Of requests: read as they come, and no more of them at once than there is memory for. Of answers in
pieces: passed on as the handler sends them.

A connection takes in up to 64 KiB by itself. Of what is larger each piece has its bytes taken from the `BodyBudget`;
while there are none it is not read, and the client waits in its kernel. The pieces belong to who reads them, and are
let go of in the moment in which that ends, however it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from functools import partial
from typing import Final

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, DeadlineExceeded, ModelError, Overloaded
from marway.resolve import Resolved
from marway.wire.envelope import Row
from marway_http.channel import LARGE_BODY_BYTES, ClientGone, HeaderBlock
from marway_http.eager import in_task
from marway_http.http1.request import Request
from marway_sidecar.api.answers import BODILESS, headers_of, model_error
from marway_sidecar.api.call import Call
from marway_sidecar.errors import about
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.memory.body_budget import BodyBudget, HeldBytes
from marway_sidecar.scheduler import StreamJob

__all__ = ["answer_unread", "read_body", "stream_answer"]

_LINGER_S: Final = 1.0
_TOO_SLOW: Final = "the body came too slowly for the memory that it held, which others waited for: send it again"


async def read_body(
    call: Call, *, limit: int, budget: BodyBudget, deadline: Deadline
) -> tuple[bytes, HeldBytes | None]:
    """Return the whole body of a call that has to be received yet, and what has to be released for it, or None.

    The call is interrupted with `Overloaded` where the body comes too slowly for the memory that it holds while others
    wait for some.

    Raises:
        BodyTooLarge: It has more than ``limit`` bytes; the rest was not read.
        ClientGone: The client left.
        DeadlineExceeded: The deadline passed first.
    """
    assert isinstance(call.channel, Request)
    await in_task()
    try:
        async with asyncio.timeout(deadline.left_s()):
            return await _read(call, call.channel, limit, budget)
    except TimeoutError as exc:
        raise DeadlineExceeded("the deadline passed before the whole body had come") from exc


async def _read(call: Call, request: Request, limit: int, budget: BodyBudget) -> tuple[bytes, HeldBytes | None]:
    held = None
    pieces: list[bytes] = []
    size, length = 0, call.length
    counts = length is not None and length > LARGE_BODY_BYTES
    try:
        more = True
        while more:
            message = await request.receive()
            if message["type"] != "http.request":
                raise ClientGone
            more = message["more_body"]
            pieces.append(message["body"])
            del message
            size += len(pieces[-1])
            if size > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes, which is the limit: send less at once")
            if held is not None:
                await _hold(request, held, len(pieces[-1]))
            elif counts or size > LARGE_BODY_BYTES:
                slow = Overloaded(_TOO_SLOW)
                held = budget.open(length if length is not None else limit, partial(request.interrupt, slow))
                await _hold(request, held, size)
        if held is not None:
            held.came_whole()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), held
    except BaseException:
        if held is not None:
            held.release()
        raise
    finally:
        pieces.clear()  # an error's traceback, which lasts longer than its request, has this frame


async def _hold(request: Request, held: HeldBytes, count: int) -> None:
    if not held.take(count):
        with request.unread(partial(request.interrupt, ClientGone())):
            await held.wait(count)


async def _begin_answer(request: Request, status: int, headers: HeaderBlock, *, close: bool) -> None:
    raw = [tuple(line.split(b": ", 1)) for line in headers.text.split(b"\r\n")[:-1]]
    if close:
        raw.append((b"connection", b"close"))
    await request.send({"type": "http.response.start", "status": status, "headers": raw})


async def answer_unread(request: Request, status: int, headers: HeaderBlock, body: bytes) -> None:
    """Send an answer to a request whose body did not come whole, and close the connection.

    Some of the body is read and dropped first: closing while the client sends makes its kernel throw the answer away
    (RFC 9112 §9.6).
    """
    if request.expects_continue:  # it sends none
        await request.answer(status, headers, body, close=True)
        return
    await _begin_answer(request, status, headers, close=True)
    await request.send({"type": "http.response.body", "body": body, "more_body": True})
    await in_task()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await request.receive()).get("more_body", False):
                pass
    await request.send({"type": "http.response.body", "body": b"", "more_body": False})


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

    The version is declared streaming, or the request asks for pieces. The last one has to be read by the ``deadline``.

    Raises:
        MarwayError: As `ModelPool.stream`; the answer may have begun.
    """
    await in_task()
    job = StreamJob(row, deadline, group=call.group, body=held, priority=call.priority)
    pieces = pool.stream(resolved.record, resolved.serving, job)
    try:
        # A client that reads too slowly holds the stream up, and must not do so beyond the deadline.
        async with aclosing(pieces), asyncio.timeout(None) as limit:
            async for piece in pieces:
                if piece.kind == "error":
                    raise model_error(piece, resolved)
                if not channel.started:
                    limit.reschedule(asyncio.get_running_loop().time() + deadline.left_s())
                    call.take_in(job)
                    headers = headers_of(piece, resolved, call.ids, call.run())
                    await _begin_answer(channel, piece.status, headers, close=drain.draining)
                if piece.body and piece.status not in BODILESS:
                    await channel.send({"type": "http.response.body", "body": piece.body, "more_body": True})
    except TimeoutError as exc:
        raise DeadlineExceeded("the deadline passed before the last piece of the answer was read") from exc
    finally:
        call.take_in(job)
    if not channel.started:
        raise about(resolved.record, ModelError("the handler ended without an answer"))
    await channel.send({"type": "http.response.body", "body": b"", "more_body": False})
