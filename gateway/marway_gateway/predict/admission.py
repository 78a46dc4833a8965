"""How many requests may be worked on at once, and who waits how long for a turn.

What is over a limit waits in the order in which it came, but only so many requests and only so long: behind a longer
queue callers give up before their turn comes, and the work is done for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from marway.errors import Overloaded
from marway_gateway.placement.pod import Pod, VersionKey
from marway_http.eager import in_task

__all__ = ["Admission", "next_turn"]

_RETRY_AFTER_S = 1.0
T = TypeVar("T")
Turns = deque[asyncio.Future[None]]
"""Those that wait in a queue; the future of one whose turn it is is done."""


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
        self._turns: dict[VersionKey, Turns] = {}
        self._for_pods: dict[VersionKey, Turns] = {}

    @property
    def queued(self) -> int:
        """How many requests wait for a turn or for a pod."""
        return self._queued

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
        await in_task()
        if not self.try_enter(key):
            what = f"{self._per_version} requests for {' '.join(key)} are being worked on"
            # Whoever leaves hands over its place, so the count stays.
            await self._wait(self._turns, key, what, found=lambda: True, pass_on=lambda: self.leave(key))

    def enter_anyhow(self, key: VersionKey) -> None:
        """Take part in a version's requests though there may be no room; `leave` ends it."""
        self._running[key] = self._running.get(key, 0) + 1

    def leave(self, key: VersionKey) -> None:
        """End a request that entered; the next one in the version's queue takes its place."""
        if next_turn(self._turns.get(key)):
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
        if pod is None:
            what = "every pod that could take the request has as many as it may have"
            queues = self._for_pods
            pod = await self._wait(queues, key, what, found=choose, pass_on=lambda: next_turn(queues.get(key)))
        return pod

    def pod_freed(self) -> None:
        """Say that a request on a pod has ended: whoever waits longest for a pod looks again, one of each version."""
        for queue in self._for_pods.values():
            next_turn(queue)

    async def _wait(
        self,
        queues: dict[VersionKey, Turns],
        key: VersionKey,
        what: str,
        *,
        found: Callable[[], T | None],
        pass_on: Callable[[], object],
    ) -> T:
        """Wait in a version's queue, and when our turn comes stay the first until ``found`` gives something.

        A turn that came and is not used is passed on.
        """
        if self._queued >= self._queue_limit:
            raise _overloaded(f"{what}, and {self._queued} requests wait already", key)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        queue = queues.setdefault(key, deque())
        queue.append(turn)
        self._queued += 1
        self._told(self._queued)
        result: T | None = None
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await turn
                while (result := found()) is None:
                    turn = loop.create_future()
                    queue = queues.setdefault(key, queue)
                    queue.appendleft(turn)
                    await turn
            return result
        except TimeoutError:
            message = f"{what}, and none of them ended within {self._queue_timeout_s:g} s"
            raise _overloaded(message, key) from None
        finally:
            if turn in queue:
                queue.remove(turn)
            if not queue:
                queues.pop(key, None)
            if result is None and turn.done() and not turn.cancelled():
                pass_on()
            self._queued -= 1
            self._told(self._queued)


def next_turn(queue: Turns | None) -> bool:
    """Give the turn to the first in a queue that still waits; return whether there was one."""
    while queue:
        turn = queue.popleft()
        if not turn.done():
            turn.set_result(None)
            return True
    return False


def _overloaded(message: str, key: VersionKey) -> Overloaded:
    return Overloaded(message, model=key[0], version=key[1], retry_after_s=_RETRY_AFTER_S)
