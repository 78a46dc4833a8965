"""What `marway gc` does to predictions that were answered later: answers that are given no more go."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from marway.registry import Registry
from marway_gateway.asynchronous.spool import CLAIMS, REQUESTS, RESULTS, kept_until
from marway_observations.store import open_observations

__all__ = ["collect"]

_UNANSWERED: Final = timedelta(days=7)
"""Of a request that no gateway has taken up in all that time, its deadline long past."""


def collect(registry: Registry, *, observations: str | None = None, dry_run: bool = False) -> dict[str, list[str]]:
    """Delete answers that are given no more, and requests that nobody takes up; return their keys.

    Args:
        registry: Has them, where no other store does.
        observations: URL of the store that has observations, and with them these.
        dry_run: Change nothing; the keys are those that would be deleted.

    Raises:
        RegistryUnavailable: The store cannot be reached.
    """
    store = open_observations(registry.url, observations)
    found = [
        key for key in store.keys(RESULTS) if (until := kept_until(store, key)) is not None and until <= time.time()
    ]
    now = store.now()
    for prefix in (REQUESTS, CLAIMS):
        for key in store.keys(prefix):
            written = store.written_at(key)
            if written is not None and now - written > _UNANSWERED:
                found.append(key)
    if not dry_run:
        for key in found:
            store.delete(key)
    return {"expired": found}
