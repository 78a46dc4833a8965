"""How many requests may be worked on at once, and who waits how long for a turn.

What is over a limit waits in the order in which it came, but only so many requests and only so long: behind a longer
queue callers give up before their turn comes, and the work is done for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from marway.errors import Overloaded
from marway_gateway.placement.pod import Pod, VersionKey
from marway_http.eager import in_task

__all__ = ["Admission"]

_RETRY_AFTER_S = 1.0


class _Turn:
    """One request's place in a queue."""

    __slots__ = ("came",)

    def __init__(self) -> None:
        self.came: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Admission:
    """Limits on versions, and the queue in which requests wait for a version's turn or for room on a pod.

    Args:
        per_version: Requests for one version at once.
        queue_limit: Requests that may wait, of all versions together.
        queue_timeout_s: How long one may wait.
        queued: Told how many wait, whenever that changes.
    """

    def __init__(
        self,
        *,
        per_version: int,
        queue_limit: int,
        queue_timeout_s: float,
        queued: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._per_version = per_version
        self._queue_limit = queue_limit
        self._queue_timeout_s = queue_timeout_s
        self._told = queued
        self._queued = 0
        self._running: dict[VersionKey, int] = {}
        self._turns: dict[VersionKey, deque[_Turn]] = {}
        self._for_pods: dict[VersionKey, deque[_Turn]] = {}

    @property
    def running(self) -> int:
        """How many requests have entered and not left."""
        return sum(self._running.values())

    def try_enter(self, key: VersionKey) -> bool:
        """Take part in a version's requests if there is room; return whether there was. `leave` ends it."""
        running = self._running.get(key, 0)
        if running >= self._per_version:
            return False
        self._running[key] = running + 1
        return True

    async def enter(self, key: VersionKey) -> None:
        """Take part in a version's requests, after waiting for a turn if need be; `leave` ends it.

        Raises:
            Overloaded: Too many wait already, or the turn did not come in time.
        """
        what = f"{self._per_version} requests for {' '.join(key)} are being worked on"
        await in_task()
        if self.try_enter(key):
            return
        turns = self._turns.setdefault(key, deque())
        turn = self._join(turns, what, key)
        try:
            async with self._in_time(what, key):
                await turn.came  # whoever leaves hands over its place, so the count stays
        except BaseException:
            if turn.came.done() and not turn.came.cancelled():
                self.leave(key)  # the turn came, but too late
            raise
        finally:
            self._quit(turns, turn)
            if not turns:
                self._turns.pop(key, None)

    def enter_anyhow(self, key: VersionKey) -> None:
        """Take part in a version's requests though there may be no room; `leave` ends it."""
        self._running[key] = self._running.get(key, 0) + 1

    def leave(self, key: VersionKey) -> None:
        """End a request that entered; the next one in the version's queue takes its place."""
        if _next(self._turns.get(key)):
            return
        left = self._running[key] - 1
        if left:
            self._running[key] = left
        else:
            del self._running[key]

    async def pod_for(self, key: VersionKey, choose: Callable[[], Pod | None]) -> Pod:
        """Return the pod that ``choose`` gives, after waiting for room on one while it gives None.

        Raises:
            Overloaded: Too many wait already, or there was no room in time.
            MarwayError: Whatever ``choose`` raises.
        """
        await in_task()
        pod = choose()
        if pod is not None:
            return pod
        what = "every pod that could take the request has as many as it may have"
        queue = self._for_pods.setdefault(key, deque())
        turn = self._join(queue, what, key)
        try:
            async with self._in_time(what, key):
                while True:
                    await turn.came
                    pod = choose()
                    if pod is not None:
                        return pod
                    turn.came = asyncio.get_running_loop().create_future()
                    queue.appendleft(turn)
        finally:
            self._quit(queue, turn)
            if not queue:
                self._for_pods.pop(key, None)
            elif pod is None:
                _next(queue)  # in case it was our turn

    def pod_freed(self) -> None:
        """Say that a request on a pod has ended: whoever waits longest for a pod looks again, one of each version."""
        for queue in self._for_pods.values():
            _next(queue)

    def _join(self, queue: deque[_Turn], what: str, key: VersionKey) -> _Turn:
        if self._queued >= self._queue_limit:
            raise Overloaded(
                f"{what}, and {self._queued} requests wait already",
                model=key[0],
                version=key[1],
                retry_after_s=_RETRY_AFTER_S,
            )
        turn = _Turn()
        queue.append(turn)
        self._queued += 1
        self._told(self._queued)
        return turn

    @asynccontextmanager
    async def _in_time(self, what: str, key: VersionKey) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                yield
        except TimeoutError:
            raise Overloaded(
                f"{what}, and none of them ended within {self._queue_timeout_s:g} s",
                model=key[0],
                version=key[1],
                retry_after_s=_RETRY_AFTER_S,
            ) from None

    def _quit(self, queue: deque[_Turn], turn: _Turn) -> None:
        if turn in queue:
            queue.remove(turn)
        self._queued -= 1
        self._told(self._queued)


def _next(queue: deque[_Turn] | None) -> bool:
    """Give the turn to the first in a queue that still waits; return whether there was one."""
    while queue:
        turn = queue.popleft()
        if not turn.came.done():
            turn.came.set_result(None)
            return True
    return False
