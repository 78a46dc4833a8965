"""One request whose answer comes in pieces, on its way through a version's queue to the model server and back."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from marway.deadline import Deadline
from marway.wire.envelope import Answer, Row
from marway_sidecar.memory.body_budget import HeldBytes
from marway_sidecar.scheduler.queue import Job

__all__ = ["StreamJob"]

_PIECES: Final = 16


class StreamJob(Job):
    """One row whose answer comes in pieces; `future` is done when they have ended, and has no answers."""

    __slots__ = ("_changed", "_pieces", "_taken")

    def __init__(
        self,
        row: Row,
        deadline: Deadline,
        *,
        group: str = "",
        body: HeldBytes | None = None,
        priority: str | None = None,
    ) -> None:
        super().__init__([row], deadline, group=group, body=body, priority=priority)
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
