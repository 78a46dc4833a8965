"""Bodies of requests: read as they come, and no more of them at once than there is memory for.

A connection takes in up to 64 KiB by itself. Of what is larger each piece has its bytes taken from the `BodyBudget`;
while there are none it is not read, and the client waits in its kernel. The pieces belong to who reads them, and are
let go of in the moment in which that ends, however it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Final

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, DeadlineExceeded, Overloaded
from marway_http.body import LARGE_BODY_BYTES
from marway_http.channel import ClientGone, HeaderBlock
from marway_http.eager import in_task
from marway_http.http1.request import Request
from marway_sidecar.api.call import Call
from marway_sidecar.memory.body_budget import BodyBudget, HeldBytes

__all__ = ["answer_unread", "begin_answer", "read_body"]

_LINGER_S: Final = 1.0


async def read_body(
    call: Call, *, limit: int, budget: BodyBudget, deadline: Deadline
) -> tuple[bytes, HeldBytes | None]:
    """Return the whole body of a call that has to be received yet, and what has to be released for it, or None.

    Args:
        call: Whose it is. It is interrupted with `Overloaded` where the body comes too slowly for the memory that it
            holds while others wait for some.
        limit: The most bytes that it may have.
        budget: Where a large one has its memory from.
        deadline: Until when it has to be here.

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
                held = budget.open(length if length is not None else limit, partial(request.interrupt, _too_slow()))
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


def _too_slow() -> Overloaded:
    return Overloaded("the body came too slowly for the memory that it held, which others waited for: send it again")


async def begin_answer(request: Request, status: int, headers: HeaderBlock, *, close: bool) -> None:
    """Send the beginning of an answer whose body follows."""
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
    await begin_answer(request, status, headers, close=True)
    await request.send({"type": "http.response.body", "body": body, "more_body": True})
    await in_task()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await request.receive()).get("more_body", False):
                pass
    await request.send({"type": "http.response.body", "body": b"", "more_body": False})
