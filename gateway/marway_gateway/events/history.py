"""Looks through the histories of all models for what happened, at a pace that a registry of any size stands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from marway.errors import InvalidRecord, MarwayError
from marway.records import HistoryEntry
from marway.registry import Registry
from marway_observations.events import Event, EventLog
from marway_observations.events.history import HistoryEvents, events_of

__all__ = ["HistoryScan"]

T = TypeVar("T")

_PACE_S: Final = 0.02
"""Time from one model to the next: at most 50 a second, which take less than a hundredth of a processor."""
_PACE_S3_S: Final = 0.1
"""The same in S3, where each is a request that costs money, and boto3 more of the processor."""
_log = logging.getLogger(__name__)


class HistoryScan:
    """Raises the events of releases, rollouts, rollbacks and deletions.

    Args:
        registry: Whose models.
        pace_s: Time from one model to the next, in seconds; None takes what suits the store.
    """

    def __init__(self, registry: Registry, *, pace_s: float | None = None) -> None:
        self._registry = registry
        self._log = EventLog(registry.store)
        self._events = HistoryEvents(registry, self._log)
        suits = _PACE_S3_S if registry.url.startswith("s3:") else _PACE_S
        self._pace_s = suits if pace_s is None else pace_s
        self._damaged: dict[str, str] = {}
        # One, and its own: looks come one after the other, and a store that hangs must not keep requests' threads.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="histories")

    async def run(self) -> None:
        """Look at every model once.

        Raises:
            RegistryUnavailable: The registry does not answer: the next look misses nothing.
        """
        loop = asyncio.get_running_loop()
        began = await self._call(self._events.began)
        models = await self._call(lambda: list(self._events.models()))
        for model in models:
            next_at = loop.time() + self._pace_s
            try:
                await self._call(lambda model=model: self._events.look(model))  # type: ignore[misc]
            except InvalidRecord as exc:
                if self._damaged.get(model) != exc.message:
                    _log.warning("what happened to model %r raises no events: %s", model, exc.message)
                self._damaged[model] = exc.message
            else:
                self._damaged.pop(model, None)
            await asyncio.sleep(next_at - loop.time())
        if not began:
            await self._call(self._events.begin)

    def changed(self, model: str, entry: HistoryEntry) -> None:
        """Raise the events of a change that was made here, soon; where that fails the next look raises them."""
        for event in events_of(model, entry):
            with contextlib.suppress(RuntimeError):  # this gateway has just ended
                self._thread.submit(self._raise, event)

    def close(self) -> None:
        """End what was begun; a second call does nothing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _raise(self, event: Event) -> None:
        try:
            self._log.raise_(event)
        except MarwayError as exc:
            _log.info("event %s is raised later: %s", event.id, exc.message)

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
