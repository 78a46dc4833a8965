"""Whether this gateway can serve: what `/readyz` and the gRPC health service say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from marway.errors import Draining, NoPodAvailable, RegistryUnavailable, Unavailable
from marway.resolve.reader import RegistryReader
from marway_gateway.placement import PodSet

__all__ = ["Readiness"]

_PROBE = "readiness-probe"


class Readiness:
    """Says whether requests can be served.

    They can when the registry was read and at least one pod is ready. A registry that answered once and is away now
    does not make the gateway unready, as long as the last known state may serve: taking every gateway out of
    rotation would turn an outage of the store into one of all models.

    Args:
        pods: The pods.
        reader: The registry.
        max_stale_s: How long the last known state may serve; None means no bound.
        wait_s: How long to wait for the registry.
        retry_after_s: When asking again makes sense.
        clock: Monotonic seconds, the same as the reader's.
    """

    def __init__(
        self,
        pods: PodSet,
        reader: RegistryReader,
        *,
        max_stale_s: float | None,
        wait_s: float,
        retry_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.draining = False
        """Set when the gateway begins to stop."""
        self._pods = pods
        self._reader = reader
        self._max_stale_s = max_stale_s
        self._wait_s = wait_s
        self._retry_after_s = retry_after_s
        self._clock = clock

    async def trouble(self) -> Unavailable | None:
        """Return why requests cannot be served, or None when they can."""
        if self.draining:
            return Draining("this gateway is stopping", retry_after_s=self._retry_after_s)
        if not await self._registry_readable():
            return RegistryUnavailable(
                f"the registry {self._reader.registry.url} does not answer", retry_after_s=self._retry_after_s
            )
        if not self._pods.ready():
            return NoPodAvailable(self._pods.troubles(), retry_after_s=self._retry_after_s)
        return None

    async def _registry_readable(self) -> bool:
        last = self._reader.last_answer_at
        bound = float("inf") if self._max_stale_s is None else self._max_stale_s
        # Traffic keeps the time of the last answer fresh; without traffic the probe does.
        if last is not None and not self._reader.away and (bound == float("inf") or self._clock() - last < bound / 2):
            return True
        try:
            async with asyncio.timeout(self._wait_s):
                await self._reader.call(self._reader.registry.pointer, _PROBE)
        except (TimeoutError, RegistryUnavailable):
            return last is not None and self._clock() - last < bound
        return True
