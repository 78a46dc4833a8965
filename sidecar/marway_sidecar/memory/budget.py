"""The memory budget: reserved before a load, measured after it, and never overdrawn by loads that run side by side.

A reservation for a load that does not fit has idle versions evicted, then takes back the workers that others have
beyond their fewest, waits for what is being drained or is busy, in the order the reservations came, and is refused when
nothing that could go would make room. First answers come before second workers: a reservation for more workers of a
version that answers already is refused as soon as a load waits.

Where workers use GPUs, memory on these is found in the same way (`DeviceRoom`): a load that finds no device with room
has idle versions evicted that are on one, or waits, or is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence

from marway.errors import LoadFailed, MarwayError, Unavailable
from marway.records import VersionRecord
from marway_sidecar.backends.base import ServerInfo
from marway_sidecar.errors import about
from marway_sidecar.memory.device_room import DeviceRoom
from marway_sidecar.memory.estimates import REGISTERED_BYTES, Estimates
from marway_sidecar.memory.eviction import Charge, Evict, Eviction, Reservation, Tenants
from marway_sidecar.memory.places import Places
from marway_sidecar.settings import SidecarSettings

__all__ = ["Memory"]

logger = logging.getLogger(__name__)


class Memory:
    """Keeps what versions take under the budget.

    Args:
        tenants, estimates: The versions that take memory, and how much they should take.
        settings: The budget, or what stays free of the limit, and how long to wait.
        server: What the model server may take.
    """

    def __init__(self, tenants: Tenants, estimates: Estimates, settings: SidecarSettings, server: ServerInfo) -> None:
        self._tenants = tenants
        self._estimates = estimates
        self._settings = settings
        self._limit_bytes = server.memory_limit_bytes
        self._eviction = Eviction(tenants, unused_s=settings.scale_down_s)
        self._pending: deque[Reservation] = deque()
        self._pumping = False
        self._moved_at = 0.0
        self._charges: dict[str, Charge] = {}
        self._base_bytes = 0
        self._places = Places(server.versions_max)
        self.devices = DeviceRoom(estimates)
        """The GPUs' memory."""
        self.short = False
        """Whether a reservation waits or more is used than may be: then `pump` is called at any change."""
        self.used = 0
        """Bytes that are reserved or measured now."""
        self.budget: int | None = None
        """Bytes that all versions may take together; None means no limit."""
        self.server_takes(0)

    def server_takes(self, base_bytes: int) -> None:
        """Set the budget by the bytes that the server takes beside its workers.

        They grow with the heap and may shrink again, but what it once took it may take any time.
        """
        self._base_bytes = max(self._base_bytes, base_bytes)
        self.budget = self._settings.memory_budget_bytes
        if self.budget is None and self._limit_bytes is not None:
            self.budget = max(0, self._limit_bytes - self._base_bytes - self._settings.memory_reserve_bytes)

    def of(self, key: str) -> int:
        """Return what a version counts for, in bytes."""
        charge = self._charges.get(key)
        return charge.size_bytes if charge is not None else 0

    def waits(self, key: str) -> bool:
        """Whether a reservation for this version waits; until it is granted the version counts for what it has."""
        return any(reservation.record.id == key for reservation in self._pending)

    async def reserve(self, record: VersionRecord, workers: int, *, evict: Evict) -> None:
        """Set a version's charge to what it takes with so many workers, making room first.

        What they take is asked again while this waits, as measurements better a guess.

        Raises:
            LoadFailed: It is larger than the whole budget.
            Unavailable: There is no room: now, or nothing moved for `memory_wait_s`, or its turn did not come within
                `memory_wait_max_s`; nothing was changed.
        """
        what, settings = f"{record.name} {record.version}", self._settings
        reservation = Reservation(record, workers, evict, asyncio.get_running_loop().create_future())
        size_bytes = self._size(reservation)
        if self.budget is not None and size_bytes > self.budget:
            message = (
                f"{what} needs {_mib(size_bytes)} MiB of memory and the budget of this pod is {_mib(self.budget)} MiB:"
                " give its model server more memory, or the version to a pool that has it"
            )
            raise about(record, LoadFailed(message))
        if (device_bytes := self.devices.needs(record)) > self.devices.largest_bytes:
            most = _mib(self.devices.largest_bytes)
            message = (
                f"{what} needs {_mib(device_bytes)} MiB of a GPU's memory and the largest of this pod has {most} MiB: "
                "give the version to a pool that has larger ones"
            )
            raise about(record, LoadFailed(message))
        self._push(reservation)
        self.pump()
        since = time.monotonic()
        if not reservation.future.done():
            logger.info("%s waits for %s MiB of memory: %s", what, _mib(size_bytes), self._taken())
        try:
            while not reservation.future.done():
                now = time.monotonic()
                quiet_s = max(since, self._moved_at) + settings.memory_wait_s - now
                left_s = since + settings.memory_wait_max_s - now
                if left_s <= 0:
                    limit_s = settings.memory_wait_max_s
                    raise self._no_room(f"its turn for memory did not come within {limit_s:g} s ({self._taken()})")
                if quiet_s <= 0:
                    raise self._no_room(f"nothing came free within {settings.memory_wait_s:g} s ({self._taken()})")
                await asyncio.wait({reservation.future}, timeout=min(quiet_s, left_s))
            reservation.future.result()
        except Unavailable as exc:
            exc.message = f"{what}: {exc.message}"
            about(record, exc)
            raise
        finally:
            if reservation in self._pending:
                self._pending.remove(reservation)
                self.pump()

    def estimate(self, record: VersionRecord, workers: int) -> None:
        """Set the charge of a version that has another number of workers than was reserved."""
        if not workers:
            self.devices.release(record.id)
        size_bytes = self._estimates.memory_bytes(record.id, record.archive, workers)
        self._set(record.id, Charge(size_bytes, guess=self._estimates.is_guess(record.id), up=True))
        self.pump()

    def settle(self, key: str) -> None:
        """Say that the workers which a charge was reserved for are up."""
        self._charges[key].up = True

    def measured_workers(self, record: VersionRecord, sizes: Sequence[int], *, shared_bytes: int = 0) -> bool:
        """Set the charge of a version whose workers, and what they share, were measured; return whether it changed."""
        if sizes:
            self._estimates.measured_memory(record.id, record.archive, max(sizes), shared_bytes)
        size_bytes = sum(sizes) + shared_bytes + REGISTERED_BYTES
        changed = self.of(record.id) != size_bytes
        self._set(record.id, Charge(size_bytes, up=True))
        return changed

    def release(self, key: str) -> None:
        """Give back what a version had."""
        self._eviction.leaving.pop(key, None)
        self._eviction.shrinking.pop(key, None)
        self._moved_at = time.monotonic()
        self._set(key, None)
        self.devices.release(key)
        self.pump()

    def shrunk(self, key: str) -> None:
        """Say that a version which was to give up workers has done so, or keeps them."""
        if self._eviction.shrinking.pop(key, None) is not None:
            self._moved_at = time.monotonic()
            self.pump()

    def keep(self, key: str) -> None:
        """Say that a version which was to be evicted stays."""
        self._eviction.leaving.pop(key, None)
        self.pump()

    def clear(self) -> None:
        """Forget everything: the server is gone."""
        self._charges, self.used = {}, 0
        self.devices.clear()
        self._eviction.clear()

    def measure(self) -> None:
        """Look again at what versions really take, soon, and now at who waits: something changed."""
        self._tenants.measure()
        if self.short:
            self.pump()

    def measured(self) -> None:
        """Say that a measurement was made, or failed: no guess is worth waiting for any more."""
        for charge in self._charges.values():
            charge.guess = charge.guess and not charge.up
        self.pump()

    def pump(self) -> None:
        """Grant what fits, in order, and make room for the first that does not; called whenever something changed."""
        if self._pumping:
            return  # an eviction told us of itself
        self._pumping = True
        try:
            while self._pending and self._advance(self._pending[0]):
                pass
            if not self._pending and self.budget is not None:
                self._eviction.make_room(self.used - self.budget, evict="idle", exclude=None)  # a worker has grown
        finally:
            self._pumping = False
            self.short = bool(self._pending) or (self.budget is not None and self.used > self.budget)

    def _push(self, reservation: Reservation) -> None:
        """Put a reservation in its place: more workers only as long as nobody waits for a first answer."""
        if reservation.evict == "unused" and any(other.evict == "idle" for other in self._pending):
            self._refuse(reservation, "other versions wait for memory for their first worker")
            return
        if reservation.evict == "idle":
            for other in self._pending:
                if other.evict == "unused" and not other.future.done():
                    self._refuse(other, "another version needs the memory for its first worker")
        self._pending.append(reservation)

    def _advance(self, reservation: Reservation) -> bool:
        """Grant, refuse or drop the first reservation; False when it has to wait."""
        key = reservation.record.id
        if not reservation.future.done():
            short = self._short(reservation)
            no_device = self.devices.short(reservation.record, reservation.workers)
            crowd = self._places.short(reservation, self._charges)
            if short <= 0 and not no_device and not crowd:
                self._moved_at = time.monotonic()
                self._set(key, Charge(self._size(reservation), guess=self._estimates.is_guess(key)))
                self.devices.let_in(reservation.record, reservation.workers)
                reservation.future.set_result(None)
            elif reservation.evict == "none":
                self._refuse(reservation, "no memory is free" if not crowd else "no place is free")
            elif crowd:
                if self._places.make_room(reservation, self._eviction, crowd, self._tenants.permanent()):
                    return False
                self._refuse(reservation, f"the {self._places} of this pod are taken by such that stay")
            elif short <= 0:
                if self.devices.make_room(reservation, self._eviction):
                    return False
                if reservation.evict == "idle" and self.devices.may_come(self._tenants.permanent() | {key}):
                    return False
                needed = _mib(self.devices.needs(reservation.record))
                self._refuse(reservation, f"no GPU of this pod has the {needed} MiB free that a worker takes")
            elif any(charge.guess and charge.up for charge in self._charges.values()):
                self._tenants.measure()
                return False
            elif self._eviction.make_room(short, evict=reservation.evict, exclude=key):
                return False
            elif self._may_come(reservation):
                self._eviction.take_workers(short, exclude=key, enough=False)
                return False
            else:
                budget = f"the {_mib(self.budget or 0)} MiB of this pod's memory budget"
                self._refuse(reservation, f"{budget} are taken by versions that stay")
        if self._pending and self._pending[0] is reservation:
            self._pending.popleft()
        return True

    def _refuse(self, reservation: Reservation, message: str) -> None:
        reservation.future.set_exception(self._no_room(message))

    def _size(self, reservation: Reservation) -> int:
        record = reservation.record
        return self._estimates.reservation_bytes(record.id, record.archive, reservation.workers, self.budget)

    def _short(self, reservation: Reservation) -> int:
        if self.budget is None:
            return 0
        return self.used - self.of(reservation.record.id) + self._size(reservation) - self.budget

    def _may_come(self, reservation: Reservation) -> bool:
        """Whether there will be room once versions that are busy or loading now have become idle."""
        if reservation.evict != "idle" or self.budget is None:
            return False
        stay = sum(self.of(key) for key in self._tenants.permanent() if key != reservation.record.id)
        return stay + self._size(reservation) <= self.budget

    def _set(self, key: str, charge: Charge | None) -> None:
        self.used -= self.of(key)
        if charge is None:
            self._charges.pop(key, None)
        else:
            self._charges[key] = charge
            self.used += charge.size_bytes

    def _taken(self) -> str:
        loading = sum(not charge.up for charge in self._charges.values())
        up = len(self._charges) - loading
        budget = "no limit" if self.budget is None else f"{_mib(self.budget)} MiB"
        return f"{up} versions that are in use and {loading} that are loading take {_mib(self.used)} of {budget}"

    def _no_room(self, message: str) -> MarwayError:
        return Unavailable(f"{message}: try again, or another pod", retry_after_s=self._estimates.load_s(""))


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f}".removesuffix(".0")
