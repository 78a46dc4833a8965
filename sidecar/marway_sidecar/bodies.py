"""Bodies of requests: read as they come, and no more of them at once than memory is set aside for.

A connection takes in up to 64 KiB by itself before it is read no further; what is larger first has its bytes set aside
(`BodyBudget`), and is not read before: the client waits in its kernel.
"""

from __future__ import annotations

import asyncio

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest, UnsupportedMedia, clip
from marway_sidecar.body_budget import BodyBudget, HeldBytes
from marway_sidecar.connection import UNCOUNTED_BYTES
from marway_sidecar.http import HttpChannel

__all__ = ["check_coding", "check_length", "read_body"]


def check_length(length: int | None, limit: int) -> None:
    """Refuse a body that is too large before anything is done for it.

    Raises:
        BodyTooLarge: The client says that it has more than ``limit`` bytes.
    """
    if length is not None and length > limit:
        raise BodyTooLarge(f"the body has {length} bytes; the limit is {limit}: send less at once")


def check_coding(encoding: str | None) -> None:
    """Refuse a body that would reach the handler compressed: gateways decode what clients send.

    Raises:
        UnsupportedMedia: It has a `Content-Encoding`.
    """
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMedia(f"the Content-Encoding {clip(encoding, 40)!r} is not taken: send the body as it is")


async def read_body(
    channel: HttpChannel, length: int | None, *, limit: int, budget: BodyBudget, deadline: Deadline
) -> tuple[bytes, HeldBytes | None]:
    """Return the whole body, and what has to be released for it, or None.

    Args:
        channel: Where it comes from.
        length: Its size in bytes where the client said it.
        limit: The most bytes that it may have.
        budget: Where a large one waits for its turn.
        deadline: Until when it has to be here.

    Raises:
        BodyTooLarge: It has more than ``limit`` bytes; the rest was not read.
        ClientGone: The client left.
        DeadlineExceeded: The deadline passed first.
        InvalidRequest: It is empty.
    """
    if channel.has_come and (length is None or length <= UNCOUNTED_BYTES):
        body, held = await channel.receive(), None  # waits for nothing
        if len(body) > limit:
            raise _too_large(limit)
    else:
        try:
            async with asyncio.timeout(deadline.remaining()):
                body, held = await _read(channel, length, limit, budget)
        except TimeoutError as exc:
            raise DeadlineExceeded("the deadline passed before the whole body had come") from exc
    if not body:
        raise InvalidRequest("the request has no body: send the model's input, such as curl -d 'some text' URL")
    return body, held


async def _read(
    channel: HttpChannel, length: int | None, limit: int, budget: BodyBudget
) -> tuple[bytes, HeldBytes | None]:
    held = None
    pieces: list[bytes] = []
    size = 0
    try:
        if length is not None and length > UNCOUNTED_BYTES:
            held = await _set_aside(channel, length, budget)
        while not channel.received:
            piece = await channel.receive()
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
            if held is None and size > UNCOUNTED_BYTES:
                held = await _set_aside(channel, limit, budget)  # how large it is, nobody said
        if held is not None:
            held.shrink(size)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), held
    except BaseException:
        if held is not None:
            held.release()
        raise


async def _set_aside(channel: HttpChannel, size: int, budget: BodyBudget) -> HeldBytes:
    held = budget.take(size)
    if held is not None:
        return held
    with channel.unread():
        return await budget.wait(size)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes, which is the limit: send less at once")
