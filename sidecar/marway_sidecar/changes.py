"""What changes on this pod: counted as it does, and told to whoever listens (`GET /watch`) as soon as it did.

Nothing is queued for a listener. Each one is told the difference between what it saw last and what is now, when its
connection takes more: one that reads slowly is told less often, and costs no memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from marway.wire.pods import WATCH_HEARTBEAT_S, ModelStatus, PodEvent, PodStatus

__all__ = ["Changes", "difference", "events"]

_COALESCE_S: Final = 0.03
"""The least time between two lines. A change after a quiet moment is told at once; of a burst, few lines are made."""
_BEAT_S: Final = WATCH_HEARTBEAT_S * 0.7

# What changes with every request is no reason to say something.
_RESTLESS: Final = frozenset({"requests_in_flight", "requests_queued", "last_used_at", "retry_after_s", "copied_bytes"})
_RESTLESS_POD: Final = frozenset({"models", "requests_in_flight", "memory_used_bytes", "devices"})


class Changes:
    """Counts changes and wakes who waits for the next; nothing is kept of what changed."""

    def __init__(self) -> None:
        self.generation = 0
        """How many changes there were."""
        self._next = asyncio.Event()

    def bump(self) -> None:
        """Say that something changed."""
        self.generation += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, generation: int, *, timeout_s: float | None = None) -> bool:
        """Wait until there are changes after ``generation``, and return whether they came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.generation <= generation:
                    await self._next.wait()
        except TimeoutError:
            return False
        return True


async def events(
    snapshot: Callable[[], PodStatus], changes: Changes, *, stopped: Callable[[], bool]
) -> AsyncIterator[PodEvent]:
    """Yield the pod whole, and then what changes, until ``stopped``; an empty event when nothing did for a while."""
    generation = changes.generation
    seen = snapshot()
    told_at = time.monotonic()
    yield PodEvent(pod=seen)
    while not stopped():
        if await changes.after(generation, timeout_s=_BEAT_S):
            await asyncio.sleep(told_at + _COALESCE_S - time.monotonic())
        told_at = time.monotonic()
        generation = changes.generation
        now = snapshot()
        event = difference(seen, now)
        seen = now
        yield event


def difference(before: PodStatus, after: PodStatus) -> PodEvent:
    """Return the event that leads from one status to the other."""
    if not _equal(before, after, _RESTLESS_POD):
        return PodEvent(pod=after)
    known = {model.id: model for model in before.models}
    changed = tuple(model for model in after.models if not _same(known.pop(model.id, None), model))
    return PodEvent(models=changed, removed=tuple(known))


def _same(before: ModelStatus | None, after: ModelStatus) -> bool:
    return before is not None and _equal(before, after, _RESTLESS)


def _equal(before: PodStatus | ModelStatus, after: PodStatus | ModelStatus, but: frozenset[str]) -> bool:
    return all(getattr(before, name) == getattr(after, name) for name in type(after).model_fields if name not in but)
