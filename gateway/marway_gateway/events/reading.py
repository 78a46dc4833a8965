"""The events of late, for whoever looks at them again and again: each is read from the store once."""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import datetime
from itertools import islice

from marway.objects import ObjectStore
from marway_observations.events.event import Event
from marway_observations.events.log import EventLog

__all__ = ["RecentEvents"]

_KNOWN_MAX = 5000
"""Events in memory, most of them 1 KiB; when there are more, all are forgotten but those of the last look."""


class RecentEvents:
    """Reads the events of a registry. Methods block, and are safe for threads.

    Args:
        store: The registry's.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._log = EventLog(store)
        self._known: dict[str, Event] = {}
        self._lock = threading.Lock()

    def newest(
        self, *, since: datetime, until: datetime, model: str | None, types: Collection[str], limit: int
    ) -> list[Event]:
        """Return at most ``limit`` events that happened from ``since`` to ``until``, the newest first.

        Args:
            since: The oldest time.
            until: The newest.
            model: Only events of this model.
            types: Only these; one that ends with '*' stands for all that begin so.
            limit: At most so many.

        Raises:
            InvalidRecord: One of them is damaged.
            RegistryUnavailable: They cannot be read.
        """
        with self._lock:  # who comes meanwhile finds them known
            if len(self._known) > _KNOWN_MAX:
                self._known = {}
            found = self._log.newest_first(since=since, until=until, model=model, types=types, known=self._known)
            return list(islice(found, limit))
