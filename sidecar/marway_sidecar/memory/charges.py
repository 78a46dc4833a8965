"""What versions count for in the memory budget, and who waits to count for more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from marway.records import VersionRecord
from marway_sidecar.memory.eviction import Evict

__all__ = ["Charge", "Reservation"]


@dataclass(slots=True)
class Charge:
    """What one version counts for.

    `guess`: reserved by a guess that was not measured yet, although its workers are up: measuring may free some.
    """

    size_bytes: int
    guess: bool = False
    up: bool = False


@dataclass(eq=False)
class Reservation:
    """A reservation that waits."""

    record: VersionRecord
    workers: int
    evict: Evict
    future: asyncio.Future[None]

    @property
    def key(self) -> str:
        return self.record.id
