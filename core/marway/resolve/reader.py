"""Reading the registry from an event loop: its calls block, and run in a bounded thread pool.

Equal look-ups at the same time are one, and what was not found is remembered for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar, cast

from marway.errors import MarwayError, NotFound, RegistryUnavailable
from marway.registry import Registry

__all__ = ["LookUps", "RegistryReader", "keep"]

_ENTRIES_MAX: Final = 20_000
"""Models, versions and names held: twice what a large registry has, some 2 KiB each."""
Key = tuple[str, ...]
"""Which look-up."""
K = TypeVar("K")
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


def keep(cache: OrderedDict[K, T], key: K, value: T) -> None:
    """Put an entry at the end of a cache, and forget the first one when it has too many."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _ENTRIES_MAX:
        cache.popitem(last=False)


class LookUps:
    """Runs look-ups as tasks, one for all that wait for the same.

    Args:
        wait_s: How long one caller waits for one look-up.
        negative_ttl_s: How long a "not found" is remembered.
        clock: Monotonic seconds.
    """

    def __init__(self, *, wait_s: float, negative_ttl_s: float, clock: Callable[[], float]) -> None:
        self._wait_s = wait_s
        self._negative_ttl_s = negative_ttl_s
        self._clock = clock
        self._absent: OrderedDict[Key, tuple[NotFound, float]] = OrderedDict()
        self._running: dict[Key, asyncio.Task[Any]] = {}

    def running(self, key: Key) -> asyncio.Task[Any] | None:
        """Return the look-up that runs, or None."""
        return self._running.get(key)

    def raise_if_absent(self, key: Key) -> None:
        """Raise what a look-up of late ended with, if it was that there is no such thing."""
        if key in self._absent:
            error, until = self._absent[key]
            if self._clock() < until:
                raise _anew(error)
            del self._absent[key]

    def forget_absent(self) -> None:
        """Forget all that was not found."""
        self._absent.clear()

    async def once(self, key: Key, look_up: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a look-up, or wait for the equal one that runs already, at most `wait_s`."""
        task = self._running.get(key) or self.start(key, look_up)
        done, _ = await asyncio.wait({task}, timeout=self._wait_s)
        if not done:
            raise RegistryUnavailable(f"the registry has not answered within {self._wait_s:g} s")
        try:
            return cast("T", task.result())
        except NotFound as exc:
            raise _anew(exc) from None

    def start(self, key: Key, look_up: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Run a look-up that does not run already, in the background."""
        task = asyncio.create_task(look_up(), name=f"registry:{'/'.join(key)}")
        self._running[key] = task

        def done(_: asyncio.Task[T]) -> None:
            self._running.pop(key, None)
            error = None if task.cancelled() else task.exception()  # asked for, so that asyncio does not complain
            if isinstance(error, NotFound):
                keep(self._absent, key, (error, self._clock() + self._negative_ttl_s))
            elif error is not None and not isinstance(error, MarwayError):
                task.get_loop().call_exception_handler({"message": f"{task.get_name()} failed", "exception": error})

        task.add_done_callback(done)
        return task

    async def aclose(self) -> None:
        """Cancel what runs."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _anew(error: NotFound) -> NotFound:
    """Return an equal error: one instance raised by many requests would collect all their tracebacks."""
    return type(error)(error.message, model=error.model, version=error.version)
