"""Which failed attempts are made again, and what the caller is told when none is left.

Only failures that say nothing about the request are followed by another attempt (gRPC proposal A6, Envoy's retry
policy): an attempt that no pod accepted costs nothing and is made again at once, at most once a pod; one that was lost
with its pod may have been running and counts against a budget. What the model or the pod said about the request
itself is final.

The budget is Envoy's: retries under way, their pauses included, are at most a share of the requests under way, so that
an outage is not made worse by what it causes. A retry over it waits for another to end, a bounded time. One that a pod
has to load the version for leaves the budget when it is sent: all who wait for that load cost one.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from marway.errors import MarwayError, ModelError, NoPodAvailable, Unavailable
from marway_gateway.placement import Pod

__all__ = ["WORKER_DIED", "Attempts", "FailedAttempt", "RetryBudget"]

WORKER_DIED = "worker_died"
"""Reason of an attempt whose worker died; one more may follow it, on any pod."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that another may follow.

    Attributes:
        pod: Who was asked.
        reason: One word for metrics.
        error: What it ended in; its message begins with the pod's name.
        accepted: Whether the pod may have started on the request.
    """

    pod: Pod
    reason: str
    error: Unavailable
    accepted: bool


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

    @asynccontextmanager
    async def retry(self, number: int) -> AsyncIterator[bool]:
        """Wait for a place in the budget and then for the pause before a request's ``number``-th retry.

        Yields whether there was a place; without one there must be no retry.
        """
        granted = await self._take()
        try:
            if granted:
                # Full jitter: requests that failed together must not come back together.
                await asyncio.sleep(random.uniform(0, min(self._backoff_s * 2 ** (number - 1), self._backoff_max_s)))
            yield granted
        finally:
            if granted:
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


class Attempts:
    """The attempts of one request.

    Args:
        max_retries: How many further attempts may follow ones that a pod had accepted.
    """

    def __init__(self, *, max_retries: int) -> None:
        self.tried: set[Pod] = set()
        self.failed: list[FailedAttempt] = []
        self._retries_left = max_retries

    @property
    def retries(self) -> int:
        """How many failures there were that a pod had accepted: each retry that follows one is on the budget."""
        return sum(attempt.accepted for attempt in self.failed)

    @property
    def last(self) -> FailedAttempt | None:
        """The attempt before this one, or None."""
        return self.failed[-1] if self.failed else None

    def add(self, attempt: FailedAttempt, *, repeatable: bool) -> None:
        """Take in a failure; return when another attempt may be made.

        Args:
            attempt: The failure.
            repeatable: Whether the body can be sent again.

        Raises:
            Unavailable: The failure's own error, because the request cannot be sent again.
            ModelError: It has killed its worker twice.
        """
        if attempt.reason == WORKER_DIED and any(earlier.reason == WORKER_DIED for earlier in self.failed):
            # Once may be chance; what kills two workers must not be given a third, nor be asked to come back.
            raise ModelError(
                f"the request killed two workers in a row: {attempt.error.message}",
                model=attempt.error.model,
                version=attempt.error.version,
            )
        self.failed.append(attempt)
        self.tried.add(attempt.pod)
        if attempt.accepted:
            self._retries_left -= 1
        if not repeatable or self._retries_left < 0:
            raise attempt.error

    def exhausted(self, *, model: str, version: str, troubles: str) -> MarwayError:
        """Return what to tell the caller when no pod is left to ask.

        Args:
            model: For the message.
            version: For the message.
            troubles: Why pods were not asked, when none was.
        """
        said = "; ".join(attempt.error.message for attempt in self.failed) or troubles
        waits = [attempt.error.retry_after_s for attempt in self.failed if attempt.error.retry_after_s is not None]
        return NoPodAvailable(
            f"no pod can take {model} {version} now: {said}",
            model=model,
            version=version,
            retry_after_s=min(waits, default=None),
        )
