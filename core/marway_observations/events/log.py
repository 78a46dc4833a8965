"""Raising events, and reading those that were raised."""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Final

from pydantic import ValidationError

from marway.errors import InvalidRecord, RegistryUnavailable, clip
from marway.objects import ObjectExists, ObjectMissing, ObjectStore
from marway.registry import Registry
from marway_observations.events.event import Event
from marway_observations.events.outbox import Outbox

__all__ = ["DAYS", "EVENTS", "EventLog", "event_key"]

EVENTS: Final = "events/"
DAYS: Final = f"{EVENTS}date="
_THREADS: Final = 16


def event_key(event: Event) -> str:
    """Return where an event is kept."""
    return f"{DAYS}{event.day}/{event.id}.json"


class EventLog:
    """The events of a registry. Methods block; they are safe to call from many threads.

    Args:
        store: The registry's.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._registry = Registry(store, must_exist=True)
        self._outbox = Outbox(store)

    def raise_(self, event: Event) -> bool:
        """Keep an event, which webhooks are then sent; return False where it was raised before.

        One that was interrupted is finished by the next that raises the same event, or by whoever sends it.

        Raises:
            InvalidInput: It is too large.
            RegistryUnavailable: The registry is not there, or cannot be written.
            OutcomeUnknown: It cannot be found out whether it was kept: raise it again.
        """
        if self._store.size(event_key(event)) is not None:
            return False
        event = event.model_copy(update={"source": self.source()})
        event.encoded()  # refuses one that is too large before anything is written
        # First that it is to be sent: what is kept and was not put there would never be sent.
        self._outbox.put(event)
        return self.keep(event)

    def keep(self, event: Event) -> bool:
        """Keep an event that is put down to be sent; return False where it was kept before."""
        try:
            self._store.create(event_key(event), event.encoded())
        except ObjectExists:
            return False
        return True

    def source(self) -> str:
        """Return what events of this registry have as their source.

        Raises:
            RegistryUnavailable: It is not there.
        """
        self._registry.check_there()
        identity = self._registry.identity()
        if identity is None:
            raise RegistryUnavailable(f"{self._store.url} holds no registry")
        return f"/marway/registries/{identity.id}"

    def keys(self) -> Iterator[str]:
        """Yield the keys of all events."""
        return self._store.keys(DAYS)

    def get(self, key: str) -> Event | None:
        """Return the event under a key, or None where it has gone.

        Raises:
            InvalidRecord: There is something else.
        """
        try:
            data = self._store.get(key).data
        except ObjectMissing:
            return None
        try:
            return Event.model_validate_json(data)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            raise InvalidRecord(f"{key} is damaged: {clip(first['msg'], 200)}") from exc

    def newest_first(
        self,
        *,
        since: datetime,
        until: datetime,
        model: str | None = None,
        types: Collection[str] = (),
        known: MutableMapping[str, Event] | None = None,
    ) -> Iterator[Event]:
        """Yield the events that happened from ``since`` to ``until``, a day's at a time in memory.

        Args:
            since: The oldest time.
            until: The newest.
            model: Only events of this model.
            types: Only these; one that ends with '*' stands for all that begin so. None means all.
            known: Events by key that need not be read, as they never change; those that are read are added.

        Raises:
            InvalidRecord: One of them is damaged.
        """
        first, last = (f"date={at.astimezone(timezone.utc):%Y-%m-%d}" for at in (since, until))
        days = [day for day in self._store.children(EVENTS) if first <= day <= last]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="events") as threads:
            for day in reversed(days):
                found = list(self._of_day(day, threads, {} if known is None else known))
                for event in sorted(found, key=lambda each: (each.time, each.id), reverse=True):
                    if since <= event.time <= until and event.matches(model=model, types=types):
                        yield event

    def _of_day(self, day: str, threads: ThreadPoolExecutor, known: MutableMapping[str, Event]) -> Iterator[Event]:
        keys = list(self._store.keys(f"{EVENTS}{day}/"))
        yield from (known[key] for key in keys if key in known)
        new = [key for key in keys if key not in known]
        for key, event in zip(new, threads.map(self.get, new), strict=True):
            if event is not None:
                known[key] = event
                yield event
