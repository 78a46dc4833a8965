"""What `marway gc` does to events: old ones go. Ages are by the store's clock, which is the same for all."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from marway.registry import Registry
from marway_observations.events.log import EVENTS
from marway_observations.events.outbox import DEAD, PENDING

__all__ = ["KEPT", "collect"]

KEPT: Final = timedelta(days=365)
"""Of an event, from when it happened."""
_DEAD: Final = timedelta(days=90)
"""Of one that was given up for a webhook, from then on."""
_PENDING: Final = timedelta(days=7)
"""Of one that is to be sent and that nobody tries to send: no gateway is told of webhooks. Who sends it, or tried to,
writes it anew within hours."""


def collect(registry: Registry, *, observations: str | None = None, dry_run: bool = False) -> dict[str, list[str]]:
    """Delete what is kept no longer, and return its keys.

    Args:
        registry: In whose store events are.
        observations: Where observations are, which have no events.
        dry_run: Change nothing; the keys are those that would be deleted.

    Raises:
        RegistryUnavailable: The store cannot be reached.
    """
    store = registry.store
    now = store.now()
    oldest = f"date={now - KEPT:%Y-%m-%d}"
    days = [day for day in store.children(EVENTS) if day.startswith("date=") and day < oldest]
    found = [key for day in days for key in store.keys(f"{EVENTS}{day}/")]
    for prefix, kept in ((DEAD, _DEAD), (PENDING, _PENDING)):
        for key in store.keys(prefix):
            written = store.written_at(key)
            if written is not None and now - written > kept:
                found.append(key)
    if not dry_run:
        for key in found:
            store.delete(key)
    return {"expired": found}
