"""How many retries may be under way at a time.

The budget is Envoy's: retries under way, their pauses included, are at most a share of the requests under way, so that
an outage is not made worse by what it causes. A retry over it waits for another to end, a bounded time.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from marway_http.eager import in_task

__all__ = ["RetryBudget"]


class RetryBudget:
    """Bounds the retries under way, and spreads them in time.

    Args:
        percent: Of the requests under way, how many may be retries.
        minimum: Retries that are allowed however few requests are under way.
        backoff_s: The longest pause before a first retry; before each further one it is twice as long.
        backoff_max_s: The longest pause at all.
        wait_s: How long a retry over the budget waits for its turn.
        requests: Says how many requests are under way.
    """

    def __init__(
        self,
        *,
        percent: int,
        minimum: int,
        backoff_s: float,
        backoff_max_s: float,
        wait_s: float,
        requests: Callable[[], int],
    ) -> None:
        self._requests = requests
        self._percent = percent
        self._minimum = minimum
        self._backoff_s = backoff_s
        self._backoff_max_s = backoff_max_s
        self._wait_s = wait_s
        self._retrying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, number: int) -> bool:
        """Wait for a place in the budget and then for the pause before a request's ``number``-th retry.

        Return whether there was a place, which `leave` gives back; without one there must be no retry.
        """
        await in_task()
        if not await self._take():
            return False
        try:
            # Full jitter: requests that failed together must not come back together.
            await asyncio.sleep(random.uniform(0, min(self._backoff_s * 2 ** (number - 1), self._backoff_max_s)))
        except BaseException:
            self.leave()
            raise
        return True

    def leave(self) -> None:
        """Give a place back."""
        self._retrying -= 1
        self._wake()

    async def _take(self) -> bool:
        try:
            async with asyncio.timeout(self._wait_s):
                while self._retrying >= max(self._minimum, self._requests() * self._percent // 100):
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(turn)
                    await turn
        except TimeoutError:
            return False
        finally:
            # Whoever was woken and did not stay passes it on; with room for more than one, the next follows.
            self._wake()
        self._retrying += 1
        return True

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
