"""Bodies of requests: read as they come, and no more of them at once than there is memory for.

A connection takes in up to 64 KiB by itself. Of what is larger each piece has its bytes taken from the `BodyBudget`;
while there are none it is not read, and the client waits in its kernel. The pieces belong to who reads them, and are
let go of in the moment in which that ends, however it does.
"""

from __future__ import annotations

import asyncio

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest, Overloaded, UnsupportedMedia, clip
from marway_http.body import LARGE_BODY_BYTES
from marway_sidecar.api.body_budget import BodyBudget, HeldBytes
from marway_sidecar.api.http import HttpChannel, cancelling

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
    channel: HttpChannel,
    length: int | None,
    *,
    limit: int,
    budget: BodyBudget,
    deadline: Deadline,
    may_be_empty: bool = False,
) -> tuple[bytes, HeldBytes | None]:
    """Return the whole body, and what has to be released for it, or None.

    Args:
        channel: Where it comes from.
        length: Its size in bytes where the client said it.
        limit: The most bytes that it may have.
        budget: Where a large one has its memory from.
        deadline: Until when it has to be here.
        may_be_empty: Whether one without a byte is accepted.

    Raises:
        BodyTooLarge: It has more than ``limit`` bytes; the rest was not read.
        ClientGone: The client left.
        DeadlineExceeded: The deadline passed first.
        InvalidRequest: It is empty.
        Overloaded: It came too slowly for the memory that it held while others waited for some.
    """
    if channel.has_come and (length is None or length <= LARGE_BODY_BYTES):
        body, held = await channel.receive(), None  # waits for nothing
        if len(body) > limit:
            raise _too_large(limit)
    else:
        try:
            async with asyncio.timeout(deadline.remaining()):
                body, held = await _read(channel, length, limit, budget)
        except TimeoutError as exc:
            raise DeadlineExceeded("the deadline passed before the whole body had come") from exc
    if not body and not may_be_empty:
        raise InvalidRequest("the request has no body: send the model's input, such as curl -d 'some text' URL")
    return body, held


async def _read(
    channel: HttpChannel, length: int | None, limit: int, budget: BodyBudget
) -> tuple[bytes, HeldBytes | None]:
    held = None
    pieces: list[bytes] = []
    size = 0
    counts = length is not None and length > LARGE_BODY_BYTES
    try:
        with cancelling(_too_slow) as give_up:
            while not channel.received:
                pieces.append(await channel.receive())
                size += len(pieces[-1])
                if size > limit:
                    raise _too_large(limit)
                if held is not None:
                    await _hold(channel, held, len(pieces[-1]))
                elif counts or size > LARGE_BODY_BYTES:
                    held = budget.open(length if length is not None else limit, give_up)
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


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes, which is the limit: send less at once")
