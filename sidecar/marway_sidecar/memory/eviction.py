"""Which versions go, or give up workers, when memory is wanted.

A version that goes for memory is unregistered, not just left without workers. Both free the same memory: a registered
version without workers takes 40 KiB. Staying registered would save 5 ms of a come-back that takes 50 ms at the least
(the worker's start), and would keep the unpacked archive on the model server's disk, which nothing else bounds.

Unless its workers share their weights (the engine `native`): then it is parked where the others free enough, which
means that its workers go and its weights stay, and comes back within milliseconds. What is parked goes before all else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from marway.records import VersionRecord

__all__ = ["Candidate", "Charge", "Evict", "Eviction", "Reservation", "Tenants", "choose"]

Evict = Literal["idle", "unused", "none"]
"""Whom a reservation may evict: for a load any idle version, for more workers of a version that answers already only
those without a request for some time, for a load that nobody waits for nobody."""


@dataclass(slots=True)
class Charge:
    """What one version counts for in the memory budget.

    `guess`: reserved by a guess that was not measured yet, although its workers are up: measuring may free some.
    """

    size_bytes: int
    guess: bool = False
    up: bool = False


@dataclass(eq=False)
class Reservation:
    """A version that waits to count for more."""

    record: VersionRecord
    workers: int
    evict: Evict
    future: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An idle, unpinned version with workers: its memory in bytes, and when it was used last (monotonic).

    Attributes:
        weights_bytes: Of its memory, what would stay if it were parked; 0 where it cannot be.
        parked: Whether it has no workers, and only its weights are kept.
    """

    key: str
    size_bytes: int
    used_at: float
    weights_bytes: int = 0
    parked: bool = False


class Tenants(Protocol):
    """The versions that take memory."""

    def evictable(self) -> Sequence[Candidate]:
        """Return the versions that may go now."""

    def spare_workers(self) -> Sequence[Candidate]:
        """Return the versions that may give up workers now, with the bytes that those take."""

    def permanent(self) -> set[str]:
        """Return the versions that never go for others, by key: pinned ones."""

    def evict(self, key: str) -> None:
        """Unload a version for its memory; `Memory.release` or `Memory.keep` is the answer."""

    def park(self, key: str) -> None:
        """Take all workers from an idle version, whose weights are kept; `Memory.shrunk` is the answer."""

    def shrink(self, key: str) -> None:
        """Take a version's spare workers from it; `Memory.shrunk` is the answer."""

    def measure(self) -> None:
        """Measure soon; `Memory.measured` is the answer."""


class Eviction:
    """Frees memory, and knows what is on its way; who was not asked for in ``unused_s`` seconds counts as unused."""

    def __init__(self, tenants: Tenants, *, unused_s: float) -> None:
        self._tenants = tenants
        self._unused_s = unused_s
        self.leaving: dict[str, int] = {}
        """Versions that were told to go, with the bytes that they free."""
        self.shrinking: dict[str, int] = {}
        """Versions that were told to give up workers, with the bytes that those free."""

    def clear(self) -> None:
        """Forget what is on its way."""
        self.leaving.clear()
        self.shrinking.clear()

    def make_room(self, short: int, *, evict: Evict, exclude: str | None) -> bool:
        """Have versions evicted, other than ``exclude``, that free ``short`` bytes; True when so much is on its way."""
        short -= sum(self.leaving.values()) + sum(self.shrinking.values())
        if short <= 0:
            return True
        chosen = choose(self.may_go(evict, exclude=exclude), short)
        parked = _parked(chosen, sum(each.size_bytes for each in chosen) - short)
        for each in chosen:
            if each in parked:
                self.shrinking[each.key] = each.size_bytes - each.weights_bytes
                self._tenants.park(each.key)
            else:
                self.send_away(each)
        return bool(chosen) or (evict == "idle" and self.take_workers(short, exclude=exclude, enough=True))

    def may_go(self, evict: Evict, *, exclude: str | None) -> list[Candidate]:
        """Return the versions, other than ``exclude``, that may be evicted and are not on their way yet."""
        latest = time.monotonic() - (self._unused_s if evict == "unused" else 0.0)
        return [
            each
            for each in self._tenants.evictable()
            if each.key != exclude and each.key not in self.leaving and (each.parked or each.used_at <= latest)
        ]

    def send_away(self, candidate: Candidate) -> None:
        """Have a version evicted."""
        self.leaving[candidate.key] = candidate.size_bytes
        self._tenants.evict(candidate.key)

    def take_workers(self, short: int, *, exclude: str | None, enough: bool) -> bool:
        """Take spare workers from versions to free ``short`` bytes, or with ``enough`` none when all would not do."""
        there = [
            each
            for each in self._tenants.spare_workers()
            if each.key != exclude and each.key not in self.leaving and each.key not in self.shrinking
        ]
        chosen = choose(there, short) or ([] if enough else there)
        for each in chosen:
            self.shrinking[each.key] = each.size_bytes
            self._tenants.shrink(each.key)
        return bool(chosen)


def choose(candidates: Iterable[Candidate], needed_bytes: int) -> list[Candidate]:
    """Return the versions to evict, parked ones first, then the least recently used; none when all would not do.

    Of those that the order gives, the more recently used are spared again where the others do without them.
    """
    chosen: list[Candidate] = []
    freed = 0
    for candidate in sorted(candidates, key=lambda candidate: (not candidate.parked, candidate.used_at)):
        if freed >= needed_bytes:
            break
        chosen.append(candidate)
        freed += candidate.size_bytes
    if freed < needed_bytes:
        return []
    for candidate in reversed(chosen[:]):
        if freed - candidate.size_bytes >= needed_bytes:
            chosen.remove(candidate)
            freed -= candidate.size_bytes
    return chosen


def _parked(chosen: Sequence[Candidate], spare_bytes: int) -> list[Candidate]:
    """Return which of the versions that go may keep their weights, the most recently used first."""
    parked: list[Candidate] = []
    for candidate in reversed(chosen):
        if not candidate.parked and 0 < candidate.weights_bytes <= spare_bytes:
            parked.append(candidate)
            spare_bytes -= candidate.weights_bytes
    return parked
