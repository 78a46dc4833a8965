"""The GPUs that workers may use: which of them a new worker is given, and what memory is taken on each.

NVIDIA's management library says what there is and what is in use (`nvidia-ml-py`, https://docs.nvidia.com/deploy/nvml-api)
without waking a device, which torch could only do by starting CUDA in this process. Where the library is not there,
devices are counted, and their memory is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from marway.wire.runtime import DeviceMemory, RuntimeWorker

__all__ = ["Devices", "Given", "Gpu", "nvidia_gpus"]

logger = logging.getLogger(__name__)

_CUDA_BYTES: Final = 400 * 1024 * 1024
"""What CUDA itself takes of a device in each process that uses it, about."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device as it is now.

    Attributes:
        identity: What `CUDA_VISIBLE_DEVICES` has to say for it to be seen, and no other.
        name: What the driver calls it.
        total_bytes, used_bytes: Its memory; None when that is not known.
        processes: What each process takes there, in bytes, as far as the driver tells: in a container with process ids
            of its own it tells nothing that is of use.
    """

    identity: str
    name: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None
    processes: Mapping[int, int] = field(default_factory=dict)

    @property
    def free_bytes(self) -> int | None:
        """Memory that nobody uses; None when that is not known."""
        if self.total_bytes is None or self.used_bytes is None:
            return None
        return self.total_bytes - self.used_bytes


@dataclass(eq=False, slots=True)
class Given:
    """A device that a worker was given, until `Devices.take_back`.

    Attributes:
        index: Its number in the pod.
        identity: As `Gpu` has it.
        coming_bytes: What the worker will still take there; 0 once it has loaded its model.
    """

    index: int
    identity: str
    coming_bytes: int


class Devices:
    """Spreads workers over devices: each gets the one with the most memory to spare, or with the fewest workers.

    Args:
        listing: Returns the devices as they are now; may block.
    """

    def __init__(self, listing: Callable[[], Sequence[Gpu]]) -> None:
        self._listing = listing
        self._gpus: Sequence[Gpu] = listing()
        self._given: list[Given] = []

    @property
    def count(self) -> int:
        """How many devices there are."""
        return len(self._gpus)

    def look(self) -> None:
        """See how much of each is in use now. Blocks."""
        if self._gpus:
            self._gpus = self._listing() or self._gpus  # a driver that fails for a moment has not lost its devices

    def used_by(self, config: Mapping[str, Any]) -> bool:
        """Return whether workers of an archive with this configuration are given a device."""
        return self.count > 0 and config.get("deviceType") != "cpu"

    async def given_to(self, config: Mapping[str, Any], model_bytes: int, *, title: str) -> Given | None:
        """Give a worker a device as its archive's configuration has it; None where it uses none.

        As with TorchServe, `deviceIds` that are not all here count as not said, which is logged with ``title``.
        """
        if not self.used_by(config):
            return None
        among = config.get("deviceIds") or []
        if not isinstance(among, list) or not all(each in range(self.count) for each in among):
            logger.warning("%s is for GPUs that are not here (deviceIds: %s): it may get any", title, among)
            among = []
        await asyncio.to_thread(self.look)
        return self.give(model_bytes, among=among)

    def environment(self, given: Given | None) -> dict[str, str]:
        """Return what a worker's environment has to say of devices: it sees the one that it was given, as number 0.

        CUDA reads it when it is touched first, so it has to be set before the handler is imported.
        """
        if not self.count:
            return {}
        return {"CUDA_VISIBLE_DEVICES": given.identity if given is not None else ""}

    def give(self, model_bytes: int, *, among: Collection[int] = ()) -> Given:
        """Give a worker a device.

        Memory counts as it was at the last `look`, less what workers will take that are starting there.

        Args:
            model_bytes: What its model takes, about.
            among: The devices that it may be given, by number; none means any.
        """
        index = min((each for each in range(self.count) if not among or each in among), key=self._load)
        given = Given(index, self._gpus[index].identity, model_bytes + _CUDA_BYTES)
        self._given.append(given)
        return given

    def take_back(self, given: Given | None) -> None:
        """Take in that a worker has ended, which was given this device, or none."""
        if given is not None:
            self._given.remove(given)

    def measured(
        self, workers: Iterable[RuntimeWorker], *, assigned: bool
    ) -> tuple[tuple[RuntimeWorker, ...], tuple[DeviceMemory, ...]]:
        """Return the workers with what they take on their devices, and the devices.

        Of a worker whose process the driver does not tell of, it is an equal part of what nobody else is known to have
        on its device.

        Args:
            workers: All that live.
            assigned: Whether workers see no device but the one that they were given here.
        """
        gpus = self._gpus
        told = {pid: (index, size) for index, gpu in enumerate(gpus) for pid, size in gpu.processes.items()}
        found = [_told(worker, told, none_bytes=0 if assigned and gpus else None) for worker in workers]
        for index, gpu in enumerate(gpus):
            unknown = [worker for worker in found if worker.device == index and worker.device_bytes is None]
            if unknown and gpu.used_bytes is not None:
                each_bytes = max(0, gpu.used_bytes - sum(gpu.processes.values())) // len(unknown)
                more = {"device_bytes": each_bytes}
                found = [worker.model_copy(update=more) if worker in unknown else worker for worker in found]
        devices = tuple(
            DeviceMemory(
                index=index,
                name=gpu.name,
                total_bytes=gpu.total_bytes,
                used_bytes=gpu.used_bytes,
                workers=sum(worker.device == index for worker in found),
            )
            for index, gpu in enumerate(gpus)
        )
        return tuple(found), devices

    def _load(self, index: int) -> tuple[int, int, int]:
        here = [given for given in self._given if given.index == index]
        free = self._gpus[index].free_bytes
        spare = free - sum(given.coming_bytes for given in here) if free is not None else 0
        return -spare, len(here), index


def _told(worker: RuntimeWorker, told: Mapping[int, tuple[int, int]], *, none_bytes: int | None) -> RuntimeWorker:
    """Return a worker with what the driver tells of it."""
    if worker.pid in told:
        device, size = told[worker.pid]
        return worker.model_copy(update={"device": device, "device_bytes": size})
    return worker if worker.device is not None else worker.model_copy(update={"device_bytes": none_bytes})


def nvidia_gpus(environment: Mapping[str, str] = os.environ, *, dev: Path = Path("/dev")) -> list[Gpu]:
    """Return NVIDIA's devices that workers may use, in the order of their numbers. Blocks.

    Args:
        environment: Its `CUDA_VISIBLE_DEVICES`, where there is one, says which; by number or as the driver names them.
        dev: Where devices are files.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    names = [each.strip() for each in named.split(",")] if named is not None else None
    if names is not None:
        names = names[: names.index("-1")] if "-1" in names else [each for each in names if each]  # as CUDA reads it
    there = sorted(int(each.name[6:]) for each in _files(dev) if re.fullmatch(r"nvidia\d+", each.name))
    if not there or names == []:
        return []
    try:
        import pynvml
    except ImportError:
        _say("nvidia-ml-py is not installed")
    else:
        try:
            _open(pynvml)
            return [_gpu(pynvml, handle) for handle in _handles(pynvml, names)]
        except pynvml.NVMLError as exc:
            _say(str(exc))
    return [Gpu(each) for each in (names or map(str, range(len(there))))]


@functools.cache
def _open(nvml: Any) -> None:
    """Connect to the driver, once for this process: that may take longer than all that is asked of it."""
    nvml.nvmlInit()


@functools.cache
def _say(why: str) -> None:
    logger.warning("workers are spread over GPUs by number, for their memory is not known: %s", why)


def _files(dev: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(dev.iterdir())
    return []


def _handles(nvml: Any, names: Sequence[str] | None) -> Iterator[Any]:
    """Yield the library's handles of these devices, or of all; of one that is divided (MIG), of each of its parts."""
    for name in names if names is not None else map(str, range(nvml.nvmlDeviceGetCount())):
        if not name.isdigit():
            yield nvml.nvmlDeviceGetHandleByUUID(name)
            continue
        handle = nvml.nvmlDeviceGetHandleByIndex(int(name))
        parts = []
        with contextlib.suppress(nvml.NVMLError):  # most devices cannot be divided
            if nvml.nvmlDeviceGetMigMode(handle)[0]:
                for part in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                    with contextlib.suppress(nvml.NVMLError):  # fewer than there may be
                        parts.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, part))
        yield from parts or (handle,)


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    processes = {}
    with contextlib.suppress(nvml.NVMLError):
        for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if each.usedGpuMemory is not None:
                processes[int(each.pid)] = int(each.usedGpuMemory)
    return Gpu(
        nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), int(memory.total), int(memory.used), processes
    )
