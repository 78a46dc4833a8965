"""The memory of a pod's GPUs: whether the workers that a version is to have find room there, and who would make it.

What is free is what was measured last, less what workers will take that were let in since. A worker is on one device,
and goes where most is free, as the engine `native` places them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from marway.records import VersionRecord
from marway.wire.runtime import DeviceMemory
from marway_sidecar.backends.base import WorkerStatus
from marway_sidecar.memory.estimates import Estimates
from marway_sidecar.memory.eviction import Candidate, Eviction, Reservation, choose

__all__ = ["DeviceRoom"]


class DeviceRoom:
    """Keeps what is free on each device whose memory is known; without any there is always room.

    Args:
        estimates: What workers were measured to take.
    """

    def __init__(self, estimates: Estimates) -> None:
        self._estimates = estimates
        self.all: tuple[DeviceMemory, ...] = ()
        """Every device, as it was measured last."""
        self.largest_bytes = 0
        """Memory of the largest device; 0 while none is known."""
        self._free: dict[int, int] = {}
        self._there: dict[str, list[tuple[int, int]]] = {}  # a version's workers: device, bytes
        self._coming: dict[str, list[int]] = {}

    def measured(self, devices: Iterable[DeviceMemory]) -> None:
        """Take in what is free now."""
        self.all = tuple(devices)
        known = [each for each in self.all if each.total_bytes and each.free_bytes is not None]
        self.largest_bytes = max((each.total_bytes or 0 for each in known), default=0)
        self._free = {each.index: each.free_bytes or 0 for each in known}

    def measured_workers(self, record: VersionRecord, workers: Sequence[WorkerStatus]) -> None:
        """Take in where a version's workers are, and what they take there, as far as that is known."""
        self._coming.pop(record.id, None)
        self._there[record.id] = [
            (each.device, each.device_bytes) for each in workers if each.device is not None and each.device_bytes
        ]
        sizes = [each.device_bytes for each in workers if each.device_bytes is not None]
        if self._free and len(sizes) == len(workers) and sizes:
            self._estimates.measured_device_memory(record.id, max(sizes))

    def needs(self, record: VersionRecord) -> int:
        """Return what a worker of a version takes on a device, in bytes: as it was measured, else guessed."""
        if not self._free:
            return 0
        most = max(free + sum(size for _, size in self._workers_on(device)) for device, free in self._free.items())
        return self._estimates.device_bytes(record.id, record.archive, most)

    def of(self, key: str) -> int:
        """Return what a version's workers take on all devices, in bytes."""
        return sum(size for _, size in self._there.get(key, ())) + sum(self._coming.get(key, ()))

    def short(self, record: VersionRecord, workers: int) -> bool:
        """Return whether there is no room for a version with so many workers, those that it has included."""
        size, left = self.needs(record), self._left(but=record.id)
        return size > 0 and any(_take(left, size) < 0 for _ in range(workers - len(self._there.get(record.id, ()))))

    def let_in(self, record: VersionRecord, workers: int) -> None:
        """Count so many workers of a version as coming, less those that it has."""
        size = self.needs(record)
        more = workers - len(self._there.get(record.id, ()))
        if size and more > 0:
            self._coming[record.id] = [size] * more

    def release(self, key: str) -> None:
        """Count a version's workers as gone."""
        self._coming.pop(key, None)
        for device, size in self._there.pop(key, ()):
            if device in self._free:
                self._free[device] += size

    def clear(self) -> None:
        """Forget who is where: the server is gone."""
        self._there.clear()
        self._coming.clear()
        self.measured(())

    def make_room(self, reservation: Reservation, eviction: Eviction) -> bool:
        """Have versions evicted so that a device has room for a worker more; True when that is on its way."""
        if any(self.of(key) for key in (*eviction.leaving, *eviction.shrinking)):
            return True
        chosen = self._who_goes(reservation.record, eviction.may_go(reservation.evict, exclude=reservation.record.id))
        for each in chosen:
            eviction.send_away(each)
        return bool(chosen)

    def _who_goes(self, record: VersionRecord, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return versions whose leaving makes room on one device, used as long ago as may be; none where none would."""
        size, left = self.needs(record), self._left(but=record.id)
        found = []
        for device, free in left.items():
            here: Counter[str] = Counter()
            for key, taken in self._workers_on(device):
                here[key] += taken
            there = [replace(each, size_bytes=here[each.key]) for each in candidates if here[each.key]]
            chosen = choose(there, size - free)
            if chosen:
                found.append((max(each.used_at for each in chosen), [each.key for each in chosen]))
        keys = min(found, default=(0.0, []))[1]
        return [each for each in candidates if each.key in keys]

    def may_come(self, permanent: set[str]) -> bool:
        """Return whether anybody takes memory who may leave one day."""
        return any(self.of(key) for key in {*self._there, *self._coming} - permanent)

    def _left(self, *, but: str) -> dict[int, int]:
        left = dict(self._free)
        for key, sizes in self._coming.items():
            for size in sizes if key != but else ():
                _take(left, size)
        return left

    def _workers_on(self, device: int) -> list[tuple[str, int]]:
        return [(key, size) for key, there in self._there.items() for on, size in there if on == device]


def _take(left: dict[int, int], size: int) -> int:
    """Take from the device that has most; return what it then has, less than 0 where that was too much."""
    most = max(left, key=lambda device: left[device])
    left[most] -= size
    return left[most]
