"""The lease that one gateway among all holds: an object in the registry's store, taken and kept by compare-and-swap.

Whether it has run out is told by the store's own clock alone: when it was written, and what time it is there. A holder
counts from before its write, on its monotonic clock, so it stops before others may begin. A process that was stopped
and goes on does not know that it lost the lease: nothing that is done under it may rely on being the only one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import Field

from marway.errors import InvalidRecord
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from marway.refs import new_ulid
from marway.registry.encoding import decode, encode
from marway.stored import Frozen

__all__ = ["LASTS_S", "RENEW_S", "Lease", "LeaseRecord"]

LASTS_S: Final = 30.0
"""How long a lease lasts that is not renewed: so long nobody does the work after its holder was killed."""
RENEW_S: Final = 10.0
"""Time between two renewals, and between two looks of those who wait: two may fail before the lease runs out."""
_SURE: Final = 0.9
"""Part of that time that a holder counts on: S3 tells times in whole seconds."""


class LeaseRecord(Frozen):
    """`leases/<name>.json`.

    Attributes:
        holder: Who has it; None once it was given back.
        lasts_s: How long after it was written it runs out, in seconds.
        op_id: Tells this write from any other: two with the same bytes would be taken for one.
    """

    format: Literal[1] = 1
    holder: str | None
    lasts_s: Annotated[float, Field(gt=0)]
    op_id: str


class Lease:
    """One gateway's hold on a lease, or its wait for it. Methods block; one thread at a time calls them.

    Args:
        store: Where the lease is.
        name: Which lease.
        holder: Who asks; None makes a name of this host, this process and a random part.
        lasts_s: How long it lasts unless it is renewed, in seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        name: str = "duties",
        holder: str | None = None,
        lasts_s: float = LASTS_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.holder = holder or f"{socket.gethostname()}-{os.getpid()}-{new_ulid()}"
        self.name = name
        self._store = store
        self._key = f"leases/{name}.json"
        self._lasts_s = lasts_s
        self._clock = clock
        self._tag: str | None = None
        self._until = float("-inf")

    def left_s(self) -> float:
        """Return for how long it is surely held, in seconds; 0.0 when it is not held."""
        return max(0.0, self._until - self._clock())

    def renew(self) -> bool:
        """Keep the lease, or take it where nobody has it, and return whether it is held.

        Raises:
            RegistryUnavailable: The store does not answer; what is held is held until it runs out.
        """
        began = self._clock()
        tag, self._tag = self._tag, None  # an outcome that is not known is looked up the next time
        try:
            if tag is None:
                tag = self._free()
                if tag is None:
                    self._until = float("-inf")
                    return False
            self._tag = self._write(self.holder, tag)
        except (ObjectChanged, ObjectExists):
            self._until = float("-inf")
            return False
        self._until = began + self._lasts_s * _SURE
        return True

    def release(self) -> None:
        """Give it back, so that another need not wait until it runs out; does nothing where it is not held.

        Raises:
            RegistryUnavailable: The store does not answer; it runs out by itself.
        """
        tag, self._tag, self._until = self._tag, None, float("-inf")
        if tag is not None:
            with contextlib.suppress(ObjectChanged):  # it had run out, and another has it
                self._write(None, tag)

    def _free(self) -> str | None:
        """Return the tag of a lease that may be written over, empty where there is none yet; None where it is held."""
        try:
            stored = self._store.get(self._key)
        except ObjectMissing:
            return ""
        lasts_s = self._lasts_s
        with contextlib.suppress(InvalidRecord):  # whoever wrote a damaged one holds it as long as any
            found = decode(LeaseRecord, stored.data, source=self._key)
            if found.holder in (None, self.holder):
                return stored.etag
            lasts_s = found.lasts_s
        return stored.etag if self._age_s() > lasts_s else None

    def _age_s(self) -> float:
        """Return how old the lease is; written meanwhile it is younger than what was read, which a write then finds."""
        written = self._store.written_at(self._key)
        return float("inf") if written is None else (self._store.now() - written).total_seconds()

    def _write(self, holder: str | None, tag: str) -> str:
        record = LeaseRecord(holder=holder, lasts_s=self._lasts_s, op_id=new_ulid())
        data = encode(record, key=self._key)
        return self._store.replace(self._key, data, etag=tag) if tag else self._store.create(self._key, data)
