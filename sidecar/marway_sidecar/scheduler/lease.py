"""Calls that go on without their caller.

TorchServe finishes what it has begun even when the caller is gone, so a version's slot is free only when the work has
ended. Each call runs in a task of its own, with a deadline of its own that the work cannot outlive; the caller waits
for it as long as it likes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, RuntimeDown
from marway.wire.envelope import Answer, Row
from marway_sidecar.api.body_budget import HeldBytes
from marway_sidecar.backends.base import ModelServer, NotLoaded, ServedModel
from marway_sidecar.lifecycle.actor import Actor
from marway_sidecar.lifecycle.server_instance import Session
from marway_sidecar.scheduler.batching import own_deadline, was_slow
from marway_sidecar.scheduler.breaker import Breaker
from marway_sidecar.scheduler.scheduler import Slot

__all__ = ["Lease", "LeasedServer", "leased"]

_PIECES: Final = 16


class LeasedServer:
    """The model server as who holds a lease may use it: every call counts for the lease's slot until its work ends.

    Args:
        server: The model server.
        slot: The lease's slot.
        breaker: Told how calls end.
        lost: Called when the server says that it does not have the version.
        streamed: Told the last piece of each streamed answer.
    """

    def __init__(
        self,
        server: ModelServer,
        slot: Slot,
        breaker: Breaker,
        *,
        lost: Callable[[], None],
        streamed: Callable[[Sequence[Answer]], None],
    ) -> None:
        self._server = server
        self._slot = slot
        self._breaker = breaker
        self._lost = lost
        self._streamed = streamed
        self._asked = False

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Return the answers to ``rows``, in their order; raises as `ModelServer.predict` does."""
        remaining = _remaining(deadline, model)
        task = self._start(self._server.predict(model, rows, own_deadline(deadline, model)), name="predict")
        started = time.monotonic()
        done, _ = await asyncio.wait({task}, timeout=remaining)
        if not done:
            raise self._late(model, started)
        if task.cancelled():
            raise RuntimeDown("the model server was let go of during the call", model=model.name)
        answers: list[Answer] = task.result()
        return answers

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of an answer; raises as `ModelServer.predict_stream` does.

        Pieces that nobody takes any more are read and dropped, until the handler has ended.
        """
        _remaining(deadline, model)
        pieces: asyncio.Queue[Answer | None] = asyncio.Queue(_PIECES)
        left = asyncio.Event()
        task = self._start(self._pump(model, row, own_deadline(deadline, model), pieces, left), name="stream")
        started = time.monotonic()
        try:
            while True:
                try:
                    async with asyncio.timeout(max(0.0, deadline.remaining())):
                        piece = await pieces.get()
                except TimeoutError as exc:
                    raise self._late(model, started) from exc
                if piece is None:
                    break
                yield piece
            await asyncio.wait({task})
            if task.cancelled():
                raise RuntimeDown("the model server was let go of during the call", model=model.name)
            task.result()
        finally:
            left.set()
            while not pieces.empty():
                pieces.get_nowait()

    def close(self) -> None:
        """Say that the lease ends; a breaker that waits to hear of it is told when there was no call."""
        if not self._asked:
            self._breaker.left()

    async def _pump(
        self,
        model: ServedModel,
        row: Row,
        deadline: Deadline,
        pieces: asyncio.Queue[Answer | None],
        left: asyncio.Event,
    ) -> None:
        piece: Answer | None = None
        try:
            async for piece in self._server.predict_stream(model, row, deadline):
                if not left.is_set():
                    await pieces.put(piece)
            if piece is not None:  # the last has every header that the handler set on the way
                self._streamed([piece])
        finally:
            if not left.is_set():
                await pieces.put(None)

    def _start(self, call: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        self._asked = True
        self._slot.hold()
        task = asyncio.create_task(call, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._breaker.ended(error)
        if isinstance(error, NotLoaded):
            self._lost()
        self._slot.release()

    def _late(self, model: ServedModel, started: float) -> MarwayError:
        usual = self._slot.gate.service_s
        if was_slow(started, usual):
            self._breaker.failed()  # far slower than usual: not just a caller in a hurry
        return DeadlineExceeded(
            f"{model.name} {model.version} did not answer within the deadline", model=model.name, version=model.version
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to one call at a time to a loaded version; while it is held the version is not unloaded."""

    server: LeasedServer
    model: ServedModel


@asynccontextmanager
async def leased(
    session: Session,
    actor: Actor,
    deadline: Deadline,
    *,
    group: str,
    body: HeldBytes | None,
    streamed: Callable[[Sequence[Answer]], None],
) -> AsyncIterator[Lease]:
    """Hold a version loaded and one slot of it: `ModelPool.lease`."""
    entry = actor.entry
    entry.ask_breaker()
    try:
        slot = await session.entrance.enter(actor, deadline, group=group)
        while entry.served is None:  # the server lost it in the moment that the slot was given
            slot.release()
            if session.over:
                raise RuntimeDown("the model server went down", model=entry.record.name, version=entry.record.version)
            slot = await session.entrance.enter(actor, deadline, group=group)
    except BaseException:
        entry.breaker.left()
        raise
    if body is not None:
        slot.keep(body)
    entry.used_at, entry.requested_at = time.monotonic(), time.time()
    server = LeasedServer(session.server, slot, entry.breaker, lost=actor.lose, streamed=streamed)
    try:
        yield Lease(server, entry.served)
    except NotLoaded:
        actor.lose()
        raise
    finally:
        entry.used_at = time.monotonic()
        server.close()
        slot.release()


def _remaining(deadline: Deadline, model: ServedModel) -> float:
    remaining = deadline.remaining()
    if remaining <= 0:
        raise DeadlineExceeded("the deadline passed before the model was asked", model=model.name)
    return remaining
