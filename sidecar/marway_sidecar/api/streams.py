"""Answers in pieces: passed on as the handler sends them."""

from __future__ import annotations

import asyncio
import time

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, ModelError
from marway.resolve import Resolved
from marway.wire.envelope import Row
from marway_sidecar.api.body_budget import HeldBytes
from marway_sidecar.api.call import HttpCall
from marway_sidecar.api.replies import BODILESS, head_of, model_error
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.scheduler import StreamJob

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
            MarwayError: As `ModelPool.stream`; the answer may have begun.
        """
        job = StreamJob(row, deadline, group=call.group, body=held)
        pieces = self._pool.stream(resolved.record, resolved.serving, job)
        try:
            # A client that reads too slowly holds the stream up, and must not do so beyond the deadline.
            async with asyncio.timeout(None) as limit:
                with call.channel.cancelled_when_gone():
                    async for piece in pieces:
                        if piece.kind == "error":
                            raise model_error(piece, resolved)
                        if not call.channel.started:
                            limit.reschedule(asyncio.get_running_loop().time() + deadline.remaining())
                            head = head_of(piece, resolved, call.ids, time.monotonic() - (job.started_at or job.since))
                            await call.channel.begin(piece.status, head, close=self._drain.draining)
                        if piece.body and piece.status not in BODILESS:
                            await call.channel.send(
                                {"type": "http.response.body", "body": piece.body, "more_body": True}
                            )
        except TimeoutError as exc:
            raise DeadlineExceeded("the deadline passed before the last piece of the answer was read") from exc
        finally:
            await pieces.aclose()
            call.accepted = job.started
        if not call.channel.started:
            raise ModelError(
                "the handler ended without an answer", model=resolved.record.name, version=resolved.record.version
            )
        await call.channel.send({"type": "http.response.body", "body": b"", "more_body": False})
