"""The one seam between the event loop and the registry, whose calls block: a bounded thread pool."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from marway.errors import RegistryUnavailable
from marway.registry import Registry

__all__ = ["RegistryReader"]

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)


class RegistryReader:
    """Calls a `Registry` from the event loop and remembers whether it answered.

    Args:
        registry: What to read; ``await reader.call(reader.registry.state, name)`` reads it.
        threads: How many calls wait for it at once; the rest queue.
        clock: Monotonic seconds.
    """

    def __init__(self, registry: Registry, *, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry
        self.last_answer_at: float | None = None
        """When the registry answered last, by ``clock``; an answer is also that there is no such thing."""
        self.away = False
        """Whether the last call found the registry not answering."""
        self._clock = clock
        self._opened_at = clock()
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="registry")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in the pool and return what it returns.

        Raises:
            MarwayError: Whatever the registry raises.
        """
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
        except RegistryUnavailable as exc:
            if not self.away:
                _log.warning("the registry does not answer, the last known state serves: %s", exc.message)
            self.away = True
            raise
        except Exception:
            self._answered()
            raise
        self._answered()
        return result

    def stale_s(self) -> float:
        """Return for how long the registry has not answered, in seconds; 0.0 when it answered the last call."""
        if not self.away:
            return 0.0
        return self._clock() - (self._opened_at if self.last_answer_at is None else self.last_answer_at)

    async def aclose(self) -> None:
        """Drop what is queued and let running calls end on their own."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answered(self) -> None:
        if self.away:
            _log.warning("the registry answers again")
        self.away = False
        self.last_answer_at = self._clock()
