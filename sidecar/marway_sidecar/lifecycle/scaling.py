"""What queues and passing time ask of versions: workers, quickly more and slowly fewer, and none in the end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from marway.serving import ServingSettings

if TYPE_CHECKING:
    from marway_sidecar.lifecycle.actor import Actor
    from marway_sidecar.lifecycle.entry import Context

__all__ = ["Autoscaler", "Usage", "bounds", "more"]

_TICK_S: Final = 1.0
_SCALE_RETRY_S: Final = 0.5  # how soon yet more workers are asked for, when those before did not help


def bounds(serving: ServingSettings, *, cpus: int) -> tuple[int, int]:
    """Return the least and the most workers of a version that is loaded; the least of a pinned one is 1."""
    least = max(serving.min_workers, 1 if serving.pinned else 0)
    most = serving.max_workers if serving.max_workers is not None else cpus
    return least, max(least, most, 1)


def more(workers: int, *, queued: int, most: int) -> int:
    """Return how many workers to go up to: one for each that waits, at most twice as many as there are."""
    return min(most, workers + max(1, min(queued, workers)))


class Usage:
    """The most workers that calls were wanted of at once within a window, in seconds: those that were of use.

    Only what stayed unused for the whole of it is given up.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._peaks: deque[tuple[float, int]] = deque()
        self._since = time.monotonic()

    def note(self, peak: int) -> None:
        """Add the peak since the last note."""
        now = time.monotonic()
        while self._peaks and self._peaks[0][0] < now - self._window_s:
            self._peaks.popleft()
        while self._peaks and self._peaks[-1][1] <= peak:
            self._peaks.pop()
        self._peaks.append((now, peak))

    def fewer(self, workers: int) -> int:
        """Return how many of ``workers`` were of use; all, until the window has passed since the last `restart`."""
        if time.monotonic() - self._since < self._window_s:
            return workers
        return min(workers, max((peak for _, peak in self._peaks), default=0))

    def restart(self) -> None:
        """Begin a new window: the number of workers was just changed."""
        self._since = time.monotonic()


class Autoscaler:
    """Tells all actors, by key, what is wanted of them; ``forget`` gets those that nobody asked for in a long time."""

    def __init__(self, context: Context, actors: Mapping[str, Actor], *, forget: Callable[[Actor], None]) -> None:
        self._settings = context.settings
        self._cpus = context.cpus
        self._actors = actors
        self._forget = forget
        self._watched: set[str] = set()  # whose queues are looked at

    def queue_grew(self, key: str) -> None:
        """Look at a version's queue in a moment: who still waits then is a reason for another worker."""
        if key not in self._watched:
            self._look_in(key, self._settings.scale_up_wait_s)

    def _look_in(self, key: str, seconds: float) -> None:
        self._watched.add(key)
        asyncio.get_running_loop().call_later(seconds, self._check_queue, key)

    def _check_queue(self, key: str) -> None:
        self._watched.discard(key)
        actor = self._actors.get(key)
        if actor is None or not actor.entry.scheduler.queued:
            return
        entry, scheduler, again_s = actor.entry, actor.entry.scheduler, self._settings.scale_up_wait_s
        _, most = bounds(entry.serving, cpus=self._cpus)
        if entry.served is not None and entry.served.workers_max is not None:
            most = min(most, entry.served.workers_max)
        may_grow = entry.answers and entry.scales and entry.workers < most and not actor.busy
        may_grow = may_grow and not scheduler.breaker.is_open
        if may_grow and scheduler.oldest_wait_s() >= again_s:
            queued = -(-scheduler.calls_queued // entry.calls_per_worker)
            actor.want_workers(more(entry.workers, queued=queued, most=most))
            again_s = max(again_s, _SCALE_RETRY_S)
        self._look_in(key, again_s)

    async def run(self) -> None:
        """Look at every version once a second, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            for actor in list(self._actors.values()):
                if not actor.busy:
                    self._tick(actor)

    def _tick(self, actor: Actor) -> None:
        """Do what passing time asks for: fewer workers, none, not loaded, forgotten; or loaded again after all."""
        entry, settings = actor.entry, self._settings
        now = time.monotonic()
        entry.usage.note(-(-entry.scheduler.take_peak() // entry.calls_per_worker))
        if entry.state == "absent" and entry.restores:
            actor.want_load(spare=True)  # the model server went away in the middle of it, and is back
            return
        if entry.state in ("absent", "failed"):
            if now - entry.asked_at > settings.forget_s and entry.idle and entry.failed_lately is None:
                self._forget(actor)
            return
        if entry.state != "ready":
            return
        unused_s = now - entry.used_at if entry.idle else 0.0
        least, _ = bounds(entry.serving, cpus=self._cpus)
        leave_s = entry.serving.idle_unload_s
        if leave_s is not None and unused_s >= leave_s and not entry.serving.pinned:
            actor.want_unload("idle")
        elif not entry.scales:
            return
        elif entry.workers < least and entry.workers:
            actor.want_workers(least)
        elif entry.workers > least and not entry.scheduler.breaker.is_open:
            fewer = max(entry.usage.fewer(entry.workers), least)
            if fewer == 0:
                fewer = 0 if unused_s >= settings.scale_to_zero_s else 1
            if fewer < entry.workers:
                actor.want_workers(fewer)
