"""Answers in pieces: passed on as the handler sends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, ModelError
from marway.resolve import Resolved
from marway.wire.envelope import Answer, Row
from marway_sidecar.api.body_budget import HeldBytes
from marway_sidecar.api.call import HttpCall
from marway_sidecar.api.replies import BODILESS, head_of, model_error
from marway_sidecar.backends.base import NotLoaded, NotSent
from marway_sidecar.lifecycle import Lease, ModelPool
from marway_sidecar.lifecycle.draining import Drain

__all__ = ["Streams"]


class Streams:
    """Answers requests for versions that stream.

    Args:
        pool: Has the version loaded.
        drain: Says whether answers close their connections.
    """

    def __init__(self, pool: ModelPool, drain: Drain) -> None:
        self._pool = pool
        self._drain = drain

    async def answer(
        self, call: HttpCall, resolved: Resolved, row: Row, deadline: Deadline, held: HeldBytes | None
    ) -> None:
        """Send the pieces of the answer to ``row``, loading the version and waiting in its queue first if need be.

        Args:
            call: The request.
            resolved: The version, which is declared streaming.
            row: What its handler gets.
            deadline: When the last piece has to be read.
            held: Memory that is held for the body.

        Raises:
            ClientGone: The client left.
            MarwayError: As `ModelPool.lease` and `ModelServer.predict_stream`; the answer may have begun.
        """
        for attempt in (1, 2):
            try:
                async with AsyncExitStack() as stack:
                    with call.channel.cancelled_when_gone():
                        leasing = self._pool.lease(
                            resolved.record, resolved.serving, deadline, group=call.group, body=held
                        )
                        lease = await stack.enter_async_context(leasing)
                    call.accepted = True
                    await self._stream(call, resolved, lease, row, deadline)
                return
            except NotSent:
                call.accepted = False
                raise
            except NotLoaded:
                # The server lost it (it was restarted under us) and ran nothing: load it again, once.
                call.accepted = False
                if attempt == 2:
                    raise

    async def _stream(self, call: HttpCall, resolved: Resolved, lease: Lease, row: Row, deadline: Deadline) -> None:
        """Pass on pieces as they come; the first one's status and headers stand for all."""
        started = time.monotonic()
        pieces = lease.server.predict_stream(lease.model, row, deadline)
        try:
            with call.channel.cancelled_when_gone():
                # A client that reads too slowly holds the stream up, and must not do so beyond the deadline.
                async with asyncio.timeout(deadline.remaining()):
                    async for piece in pieces:
                        if piece.kind == "error":
                            raise model_error(piece, resolved)
                        if not call.channel.started:
                            head = head_of(piece, resolved, call.ids, time.monotonic() - started)
                            await call.channel.begin(piece.status, head, close=self._drain.draining)
                        if piece.body and piece.status not in BODILESS:
                            await call.channel.send(
                                {"type": "http.response.body", "body": piece.body, "more_body": True}
                            )
        except TimeoutError as exc:
            raise DeadlineExceeded("the deadline passed before the last piece of the answer was read") from exc
        finally:
            await _closed(pieces)
        if not call.channel.started:
            raise ModelError(
                "the handler ended without an answer", model=resolved.record.name, version=resolved.record.version
            )
        await call.channel.send({"type": "http.response.body", "body": b"", "more_body": False})


async def _closed(pieces: AsyncIterator[Answer]) -> None:
    """End a stream that may not have been read to its end, now and not when its memory is reclaimed."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
