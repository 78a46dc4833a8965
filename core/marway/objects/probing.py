"""The check, made at start, that a store's conditional writes exclude one another.

A store that ignores conditions works perfectly until two people release at once, so it is refused before that.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from marway.errors import InvalidSettings
from marway.objects.base import PROBES, ObjectChanged, ObjectExists, ObjectStore
from marway.refs import new_ulid

__all__ = ["CREATORS", "probe"]

CREATORS = 32
"""Synchronised creators of one key."""
_WAIT_S = 60.0


def probe(store: ObjectStore) -> None:
    """Let `CREATORS` threads create one key at the same moment, and replace with a tag that is out of date.

    Raises:
        InvalidSettings: Not exactly one creator won, or the stale replacement did.
        RegistryUnavailable: The store cannot be reached, or does not let us write.
    """
    key = f"{PROBES}{new_ulid()}"
    barrier = threading.Barrier(CREATORS)

    def create(number: int) -> str | None:
        barrier.wait(_WAIT_S)
        try:
            return store.create(key, b"%d of %s" % (number, key.encode()))
        except ObjectExists:
            return None

    # One creator ahead of the others fails at once, and clearly, where nothing can be written.
    first = f"{PROBES}{new_ulid()}"
    store.create(first, first.encode())
    store.delete(first)
    try:
        with ThreadPoolExecutor(CREATORS, thread_name_prefix="probe") as threads:
            tags = [tag for tag in threads.map(create, range(CREATORS)) if tag is not None]
        if len(tags) != 1:
            raise _unsafe(store, f"{len(tags)} of {CREATORS} creators of one object were told that they made it")
        store.replace(key, b"replaced " + key.encode(), etag=tags[0])
        try:
            store.replace(key, b"out of date " + key.encode(), etag=tags[0])
        except ObjectChanged:
            return
        raise _unsafe(store, "a write on condition of a tag went through although the object had another")
    finally:
        store.delete(key)


def _unsafe(store: ObjectStore, what: str) -> InvalidSettings:
    return InvalidSettings(
        f"{store.url} cannot be a registry: {what}, so that releases would overwrite one another; use a store with "
        "conditional writes (AWS S3, SeaweedFS 4.48, a recent MinIO or Ceph) or a local file system"
    )
