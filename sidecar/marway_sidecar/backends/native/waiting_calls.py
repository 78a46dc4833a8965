"""A call to a worker, as who waits for its answer sees it."""

from __future__ import annotations

import asyncio
from collections import deque

from marway.errors import MarwayError
from marway.wire.envelope import Answer

__all__ = ["Call", "CallInPieces"]


class Call:
    """One call, until it is answered whole."""

    __slots__ = ("began", "done")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.began = loop.time()
        self.done: asyncio.Future[list[Answer]] = loop.create_future()

    def put(self, answers: list[Answer], *, last: bool) -> None:
        if not self.done.done():
            self.done.set_result(answers)

    def fail(self, error: MarwayError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class CallInPieces(Call):
    """One whose answer comes in pieces.

    Attributes:
        came: What has come and was not taken yet: pieces and whether they are the last, or why no more will come.
        done: Told when something has come.
    """

    __slots__ = ("came",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.came: deque[tuple[list[Answer], bool] | MarwayError] = deque()

    def put(self, answers: list[Answer], *, last: bool) -> None:
        self.came.append((answers, last))
        super().put(answers, last=last)

    def fail(self, error: MarwayError) -> None:
        self.came.append(error)
        super().put([], last=True)

    @property
    def waiting_bytes(self) -> int:
        """How much has come that was not taken yet."""
        return sum(len(each.body) for come in self.came if isinstance(come, tuple) for each in come[0])

    async def take(self) -> tuple[list[Answer], bool]:
        """Return what comes next, waiting for it."""
        while not self.came:
            self.done = self.done.get_loop().create_future()
            await self.done
        taken = self.came.popleft()
        if isinstance(taken, MarwayError):
            raise taken
        return taken
