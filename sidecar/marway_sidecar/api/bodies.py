"""Bodies of requests: read as they come, and no more of them at once than there is memory for.

A connection takes in up to 64 KiB by itself. Of what is larger each piece has its bytes taken from the `BodyBudget`;
while there are none it is not read, and the client waits in its kernel. The pieces belong to who reads them, and are
let go of in the moment in which that ends, however it does.
"""

from __future__ import annotations

import asyncio
from functools import partial

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, DeadlineExceeded, Overloaded, UnsupportedMedia, clip
from marway_http.eager import in_task
from marway_sidecar.api.body_budget import BodyBudget, HeldBytes
from marway_sidecar.api.call import Call
from marway_sidecar.api.connection import UNCOUNTED_BYTES
from marway_sidecar.api.http import HttpChannel

__all__ = ["check_body", "read_body"]


def check_body(call: Call, *, limit: int) -> None:
    """Refuse a body that cannot be served before anything is done for it.

    Raises:
        BodyTooLarge: It has more than ``limit`` bytes, or its client says so.
        UnsupportedMedia: It has a `Content-Encoding`, and would reach the handler compressed: gateways decode what
            clients send.
    """
    length, encoding = call.length, call.headers.get("content-encoding")
    if length is not None and length > limit:
        raise BodyTooLarge(f"the body has {length} bytes; the limit is {limit}: send less at once")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMedia(f"the Content-Encoding {clip(encoding, 40)!r} is not taken: send the body as it is")


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
    assert isinstance(call.channel, HttpChannel)
    await in_task()
    try:
        async with asyncio.timeout(deadline.remaining()):
            return await _read(call, call.channel, limit, budget)
    except TimeoutError as exc:
        raise DeadlineExceeded("the deadline passed before the whole body had come") from exc


async def _read(call: Call, channel: HttpChannel, limit: int, budget: BodyBudget) -> tuple[bytes, HeldBytes | None]:
    held = None
    pieces: list[bytes] = []
    size, length = 0, call.length
    counts = length is not None and length > UNCOUNTED_BYTES
    try:
        while not channel.received:
            pieces.append(await channel.receive())
            size += len(pieces[-1])
            if size > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes, which is the limit: send less at once")
            if held is not None:
                await _hold(channel, held, len(pieces[-1]))
            elif counts or size > UNCOUNTED_BYTES:
                held = budget.open(length if length is not None else limit, partial(call.task.interrupt, _too_slow()))
                await _hold(channel, held, size)
        if held is not None:
            held.came_whole()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), held
    except BaseException:
        if held is not None:
            held.release()
        raise
    finally:
        pieces.clear()  # an error's traceback, which lasts longer than its request, has this frame


async def _hold(channel: HttpChannel, held: HeldBytes, count: int) -> None:
    if not held.take(count):
        with channel.unread():
            await held.wait(count)


def _too_slow() -> Overloaded:
    return Overloaded("the body came too slowly for the memory that it held, which others waited for: send it again")
