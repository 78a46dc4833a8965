"""Which GPU a worker is given, and what is told of them. No test has one: the devices are those of the test."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from marway.wire.runtime import RuntimeWorker
from marway_runtime.devices import Devices, Gpu, nvidia_gpus

GIB = 1 << 30


def gpu(number: int, *, used: int | None = None, **facts: Any) -> Gpu:
    total = 16 * GIB if used is not None else None
    return Gpu(f"GPU-{number}", "H200", total, used, **facts)


def worker(pid: int, device: int | None = None) -> RuntimeWorker:
    return RuntimeWorker(pid=pid, mode="forked", private_bytes=1, device=device)


def test_workers_go_where_memory_is_free() -> None:
    """Each gets the device with the most to spare, where what workers that are starting will take is taken already."""
    devices = Devices(lambda: [gpu(0, used=8 * GIB), gpu(1, used=0), gpu(2, used=5 * GIB)])
    given = [devices.give(4 * GIB) for _ in range(4)]
    assert [each.index for each in given] == [1, 1, 2, 0]
    given[0].coming_bytes = 0  # it is there, and counted by the driver or not at all
    assert devices.give(GIB).index == 1
    devices.take_back(given[1])
    assert devices.give(GIB, among=[0, 2]).index == 2
    assert given[0].identity == "GPU-1"


def test_workers_go_where_few_are_when_memory_is_not_known() -> None:
    """Without the driver's word each goes to the device with the fewest workers, also after some have ended."""
    devices = Devices(lambda: [gpu(0), gpu(1)])
    given = [devices.give(GIB) for _ in range(4)]
    assert [each.index for each in given] == [0, 1, 0, 1]
    devices.take_back(given[1])
    devices.take_back(given[3])
    assert [devices.give(GIB).index for _ in range(3)] == [1, 1, 0]


async def test_an_archive_says_whether_and_where(caplog: pytest.LogCaptureFixture) -> None:
    """`deviceType: cpu` gets none and sees none; `deviceIds` are kept to; those that are not here are not."""
    devices = Devices(lambda: [gpu(0, used=0), gpu(1, used=GIB)])
    none = await devices.given_to({"deviceType": "cpu"}, GIB, title="m")
    assert devices.environment(none) == {"CUDA_VISIBLE_DEVICES": ""}
    given = await devices.given_to({"deviceIds": [1]}, GIB, title="m")
    assert given is not None
    assert devices.environment(given) == {"CUDA_VISIBLE_DEVICES": "GPU-1"}
    for wrong in ([0, 7], ["0"], 1):
        other = await devices.given_to({"deviceIds": wrong}, 0, title="m")
        assert other is not None
        assert other.index == 0
        assert f"deviceIds: {wrong}" in caplog.messages[-1]
        devices.take_back(other)
    nothing = Devices(list)
    assert await nothing.given_to({}, GIB, title="m") is None
    assert nothing.environment(None) == {}


def test_what_workers_take_is_told_as_far_as_it_is_known() -> None:
    """The driver's word of a process holds; what nobody is known to have is that of the others on the device."""
    devices = Devices(lambda: [gpu(0, used=6 * GIB, processes={10: 2 * GIB}), gpu(1, used=GIB), gpu(2)])
    found, told = devices.measured(
        [worker(10, 0), worker(11, 0), worker(12, 0), worker(13), worker(14, 2)], assigned=True
    )
    assert [each.device_bytes for each in found] == [2 * GIB, 2 * GIB, 2 * GIB, 0, None]
    assert [(each.index, each.workers, each.free_bytes) for each in told] == [
        (0, 3, 10 * GIB),
        (1, 0, 15 * GIB),
        (2, 1, None),
    ]
    found, _ = devices.measured([worker(10), worker(13)], assigned=False)
    assert [(each.device, each.device_bytes) for each in found] == [(0, 2 * GIB), (None, None)]


class NVMLError(Exception):
    pass


class Driver(SimpleNamespace):
    """A module of its own each time, as `sys.modules` has it."""

    __hash__ = object.__hash__


def driver() -> SimpleNamespace:
    """Return NVIDIA's library with two devices, of which the second is divided into two parts."""

    def by_name(name: str) -> str:
        if not name.startswith("GPU-"):
            raise NVMLError("not found")
        return name

    def divided(handle: str) -> list[int]:
        if handle == "GPU-0":
            raise NVMLError("not supported")
        return [1, 1]

    def part_of(handle: str, part: int) -> str:
        if part > 1:
            raise NVMLError("not found")
        return f"MIG-{part}"

    processes = [SimpleNamespace(pid=7, usedGpuMemory=GIB), SimpleNamespace(pid=8, usedGpuMemory=None)]
    return Driver(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: f"GPU-{index}",
        nvmlDeviceGetHandleByUUID=by_name,
        nvmlDeviceGetMigMode=divided,
        nvmlDeviceGetMaxMigDeviceCount=lambda handle: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=part_of,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=16 * GIB, used=GIB),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: processes,
        nvmlDeviceGetUUID=lambda handle: handle,
        nvmlDeviceGetName=lambda handle: "H200",
    )


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = driver()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "null"):
        (tmp_path / name).touch()
    return tmp_path


def test_the_drivers_devices_are_found(nvml: SimpleNamespace, dev: Path) -> None:
    """All of them, the parts of a divided one for itself; or those that `CUDA_VISIBLE_DEVICES` names, in its order."""
    found = nvidia_gpus({}, dev=dev)
    assert [each.identity for each in found] == ["GPU-0", "MIG-0", "MIG-1"]
    assert (found[0].free_bytes, found[0].processes) == (15 * GIB, {7: GIB})
    assert [each.identity for each in nvidia_gpus({"CUDA_VISIBLE_DEVICES": "GPU-1,0"}, dev=dev)] == ["GPU-1", "GPU-0"]
    assert nvidia_gpus({"CUDA_VISIBLE_DEVICES": ""}, dev=dev) == []
    assert nvidia_gpus({"CUDA_VISIBLE_DEVICES": "-1,0"}, dev=dev) == []


def test_devices_are_counted_where_the_driver_says_nothing(
    nvml: SimpleNamespace, dev: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without an answer of the driver they are those that are files, or are named; without any there are none."""

    def fails() -> None:
        raise NVMLError("driver/library version mismatch")

    nvml.nvmlInit = fails
    assert nvidia_gpus({}, dev=dev) == [Gpu("0"), Gpu("1")]
    assert nvidia_gpus({"CUDA_VISIBLE_DEVICES": "GPU-1"}, dev=dev) == [Gpu("GPU-1")]
    assert [each for each in caplog.messages if "version mismatch" in each] == caplog.messages[:1]
    assert nvidia_gpus({}, dev=tmp_path / "nowhere") == []
    assert nvidia_gpus({"CUDA_VISIBLE_DEVICES": "0"}, dev=tmp_path / "nowhere") == []
