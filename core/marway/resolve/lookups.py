"""Look-ups in the registry: equal ones at the same time are one, and what was not found is remembered for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

from marway.errors import MarwayError, NotFound, RegistryUnavailable

__all__ = ["Key", "LookUps", "keep"]

_ENTRIES_MAX: Final = 20_000
"""Models, versions and names held: twice what a large registry has, some 2 KiB each."""
Key = tuple[str, ...]
"""Which look-up."""
K = TypeVar("K")
T = TypeVar("T")


def keep(cache: OrderedDict[K, T], key: K, value: T) -> None:
    """Put an entry at the end of a cache, and forget the first one when it has too many."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _ENTRIES_MAX:
        cache.popitem(last=False)


class _Absent(NamedTuple):
    error: NotFound
    until: float


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
        self._absent: OrderedDict[Key, _Absent] = OrderedDict()
        self._running: dict[Key, asyncio.Task[Any]] = {}

    def running(self, key: Key) -> asyncio.Task[Any] | None:
        """Return the look-up that runs, or None."""
        return self._running.get(key)

    def raise_if_absent(self, key: Key) -> None:
        """Raise what a look-up of late ended with, if it was that there is no such thing."""
        absent = self._absent.get(key)
        if absent is not None:
            if self._clock() < absent.until:
                raise _anew(absent.error)
            del self._absent[key]

    def forget_absent(self) -> None:
        """Forget all that was not found."""
        self._absent.clear()

    async def once(self, key: Key, look_up: Callable[[], Awaitable[T]]) -> T:
        """Run a look-up, or wait for the equal one that runs already, at most `wait_s`."""
        task = self._running.get(key) or self.start(key, look_up)
        done, _ = await asyncio.wait({task}, timeout=self._wait_s)
        if not done:
            raise RegistryUnavailable(f"the registry has not answered within {self._wait_s:g} s")
        try:
            return cast("T", task.result())
        except NotFound as exc:
            raise _anew(exc) from None

    def start(self, key: Key, look_up: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Run a look-up that does not run already, in the background."""

        async def run() -> T:
            return await look_up()

        task = asyncio.create_task(run(), name=f"registry:{'/'.join(key)}")
        self._running[key] = task

        def done(_: asyncio.Task[T]) -> None:
            self._running.pop(key, None)
            error = None if task.cancelled() else task.exception()  # asked for, so that asyncio does not complain
            if isinstance(error, NotFound):
                keep(self._absent, key, _Absent(error, self._clock() + self._negative_ttl_s))
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
