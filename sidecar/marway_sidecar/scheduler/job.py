"""One request's rows on their way through a version's queue to the model server."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.wire.envelope import Answer, Row
from marway_http.eager import InlineFuture
from marway_sidecar.errors import without_traceback

__all__ = ["CallerLeft", "HeldBody", "Job", "StreamJob"]

_PIECES: Final = 16


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class HeldBody(Protocol):
    """Memory of a request's body, which is given back when nobody holds it."""

    def hold(self) -> None:
        """Hold it once more."""

    def release(self) -> None:
        """Give up one hold."""


class Job:
    """The rows of one request, which travel together.

    Args:
        rows: At least one, none that streams.
        deadline: When its caller leaves.
        group: Whose it is: groups take turns in a queue.
        body: Memory that is held for it, and by every call with it.

    Attributes:
        size_bytes: Of all values.
        future: The answers, in the order of the rows, or why there are none; done too when its caller has left.
        since: When it came, on the monotonic clock.
        started_at: When the model server was given it last; None while it waits.
        alone: Whether each row has to go by itself: one asks for an explanation, or a call that held others went wrong.
        lost: How often the model server did not have the version when it was asked.
    """

    __slots__ = ("alone", "body", "deadline", "future", "group", "lost", "rows", "since", "size_bytes", "started_at")

    def __init__(
        self, rows: Sequence[Row], deadline: Deadline, *, group: str = "", body: HeldBody | None = None
    ) -> None:
        self.rows = rows
        self.deadline = deadline
        self.group = group
        self.body = body
        self.future: InlineFuture[list[Answer]] = InlineFuture()
        self.since = time.monotonic()
        self.started_at: float | None = None
        self.lost = 0
        self.size_bytes = 0
        self.alone = False
        for row in rows:
            for part in row.parts:
                self.size_bytes += len(part.value)
            if row.explains:
                self.alone = True  # handlers look at the first row of a call to know

    @property
    def started(self) -> bool:
        """Whether the model server was given it."""
        return self.started_at is not None

    def answer(self, answers: list[Answer]) -> None:
        """Give the caller its answers, if it is still there."""
        if not self.future.done():
            self.future.set_result(answers)

    def fail(self, error: Exception) -> None:
        """Tell the caller why it gets none, if it is still there."""
        if not self.future.done():
            self.future.set_exception(without_traceback(error) if isinstance(error, MarwayError) else error)

    def abandon(self) -> None:
        """Say that its caller has left: it raises `CallerLeft` to who waits for the answers."""
        self.fail(CallerLeft())


class StreamJob(Job):
    """One row whose answer comes in pieces; `future` is done when they have ended, and has no answers.

    Args:
        row: The row.
        deadline, group, body: As `Job` has them.
    """

    __slots__ = ("_changed", "_pieces", "_taken")

    def __init__(self, row: Row, deadline: Deadline, *, group: str = "", body: HeldBody | None = None) -> None:
        super().__init__([row], deadline, group=group, body=body)
        self.alone = True
        self._pieces: deque[Answer] = deque()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self.future.add_done_callback(self._wake)

    async def put(self, piece: Answer) -> None:
        """Hand a piece to the caller, when there is room for it; what nobody reads any more is dropped."""
        while len(self._pieces) >= _PIECES and not self.future.done():
            self._taken.clear()
            await self._taken.wait()
        if not self.future.done():
            self._pieces.append(piece)
            self._changed.set()

    async def next(self) -> Answer | None:
        """Return the next piece, or None after the last; raises why there is none."""
        while not self._pieces:
            if self.future.done():
                self.future.result()
                return None
            self._changed.clear()
            await self._changed.wait()
        self._taken.set()
        return self._pieces.popleft()

    def close(self) -> None:
        """Read no more pieces."""
        if not self.future.cancel() and not self.future.cancelled():
            self.future.exception()  # nobody else will ask

    def _wake(self, _: object) -> None:
        self._changed.set()
        self._taken.set()
