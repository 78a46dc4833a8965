"""The memory of GPUs: who finds room, who goes for it, who is told to go elsewhere. No test has a GPU."""

from __future__ import annotations

import asyncio

import pytest

from marway.deadline import Deadline
from marway.errors import LoadFailed, Unavailable
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.metrics import SidecarMetrics
from support.fake_server import MIB, FakeServer
from support.pools import PoolRoom, predict, state
from support.registry import until

GIB = 1024 * MIB
GUESS = GIB
"""As a multiple of the archive, of six bytes: 6 GiB for a version that was never loaded."""
PINNED = ServingSettings(max_workers=1, pinned=True)


def ready(pool: ModelPool) -> list[str]:
    return [each.name for each in pool.statuses() if each.state == "ready"]


def gpu_server(*gpus: int, **on_gpu: int) -> FakeServer:
    """Return a server with GPUs of so many GiB, whose versions take so many GiB of one."""
    return FakeServer(gpus=[each * GIB for each in gpus], on_gpu={name: size * GIB for name, size in on_gpu.items()})


async def measured(pool: ModelPool, server: FakeServer) -> None:
    """Wait until every version counts for what it takes of the GPUs, and these for what is in use."""

    def same() -> bool:
        told = {each.id: each.device_bytes for each in pool.statuses() if each.device_bytes}
        held = {name: len(each.devices) * each.device_bytes for name, each in server.held.items() if each.devices}
        return told == held and sum(each.used_bytes or 0 for each in pool.devices()) == sum(held.values())

    await until(same)


async def one_after_the_other(pool: ModelPool, server: FakeServer, versions: list[VersionRecord]) -> None:
    for version in versions:
        await predict(pool, version)
        await measured(pool, server)


async def test_the_least_recently_used_goes_for_a_gpus_memory(room: PoolRoom, metrics: SidecarMetrics) -> None:
    """Of three versions with 6 GiB each on two GPUs of 10 GiB, the one used longest ago leaves its GPU."""
    pool, server = room.pool(metrics, archive_memory_factor=GUESS), gpu_server(10, 10, m0=6, m1=6, m2=6)
    pool.attach(server)
    versions = room.versions(3)
    await one_after_the_other(pool, server, [versions[0], versions[1], versions[0], versions[2]])
    assert ready(pool) == ["m0", "m2"]
    assert server.history == ["load m0", "load m1", "unload m1", "load m2"]
    assert server.violations == []
    sample = metrics.registry.get_sample_value
    assert [sample("marway_sidecar_device_used_bytes", {"device": each}) for each in "01"] == [6 * GIB, 6 * GIB]
    assert sample("marway_sidecar_device_bytes", {"device": "1"}) == 10 * GIB


async def test_versions_go_from_one_gpu_until_there_is_room(room: PoolRoom) -> None:
    """Room is made on one GPU: for 9 GiB two versions with 3 leave theirs, and one with 6 that was used since stays."""
    pool, server = room.pool(archive_memory_factor=GUESS // 2), gpu_server(10, 10, m0=9, m1=6, m2=3, m3=3)
    pool.attach(server)
    versions = room.versions(4)
    await one_after_the_other(pool, server, versions[:1])  # so that what it takes is known
    await pool.unload(versions[0].id, Deadline.after(30))
    await one_after_the_other(pool, server, [*versions[1:], versions[1], versions[0]])
    assert ready(pool) == ["m0", "m1"]
    assert server.violations == []


async def test_loads_side_by_side_do_not_overshoot_a_gpu(room: PoolRoom) -> None:
    """Six versions of 6 GiB that are wanted at once on two GPUs of 10 GiB are all served, two at a time."""
    names = {f"m{number}": 6 for number in range(6)}
    pool, server = room.pool(archive_memory_factor=GUESS), gpu_server(10, 10, **names)
    server.load_s = 0.01
    pool.attach(server)
    versions = room.versions(6)
    answers = await asyncio.gather(*[predict(pool, version) for version in versions])
    assert answers == [version.id for version in versions]
    assert server.violations == []


async def test_a_pod_without_room_on_a_gpu_says_so(room: PoolRoom) -> None:
    """When the versions on all GPUs stay, a load is refused at once, for another pod to take; who needs none loads."""
    pool, server = room.pool(archive_memory_factor=GUESS), gpu_server(10, m0=6, m1=6)
    pool.attach(server)
    first, second, third = room.versions(3)
    await predict(pool, third)
    await measured(pool, server)
    await predict(pool, first, PINNED)
    await measured(pool, server)
    with pytest.raises(Unavailable, match="no GPU of this pod has the 6144 MiB free"):
        await predict(pool, second)
    assert await predict(pool, third) == third.id
    assert server.loads == 2


async def test_a_load_waits_for_a_gpu_that_is_busy(room: PoolRoom) -> None:
    """While the version on the GPU is in use a load waits, and follows once that is idle."""
    pool, server = room.pool(archive_memory_factor=GUESS), gpu_server(10, m0=6, m1=6)
    pool.attach(server)
    first, second = room.versions(2)
    await predict(pool, first)
    await measured(pool, server)
    server.call_s = None
    server.calling.clear()
    busy = asyncio.create_task(predict(pool, first))
    await server.calling.wait()
    waiting = asyncio.create_task(predict(pool, second))
    await until(lambda: state(pool, second) == "loading")
    assert server.loads == 1
    server.answer.set()
    assert await asyncio.gather(busy, waiting) == [first.id, second.id]
    assert server.violations == []


async def test_a_second_worker_needs_room_on_a_gpu(room: PoolRoom) -> None:
    """Where no GPU has room for another worker the version goes on with the one that it has."""
    pool, server = room.pool(archive_memory_factor=GUESS, scale_up_wait_s=0.01), gpu_server(10, m0=6)
    pool.attach(server)
    (version,) = room.versions(1)
    serving = ServingSettings(max_workers=2, max_batch_rows=1)
    await predict(pool, version, serving)
    await measured(pool, server)
    server.call_s = 0.02
    await asyncio.gather(*[predict(pool, version, serving) for _ in range(12)])
    assert pool.statuses()[0].workers == 1
    assert server.violations == []


async def test_a_version_that_fits_no_gpu_is_refused_for_good(room: PoolRoom) -> None:
    """A version that was measured to take more than the pod's largest GPU has is for another pool, with both sizes."""
    pool, server = room.pool(archive_memory_factor=GUESS), gpu_server(20, m0=12)
    pool.attach(server)
    (version,) = room.versions(1)
    await predict(pool, version)
    await measured(pool, server)
    smaller = gpu_server(10)
    pool.attach(smaller)
    await until(lambda: [each.total_bytes for each in pool.devices()] == [10 * GIB])
    with pytest.raises(LoadFailed, match="12288 MiB of a GPU's memory and the largest of this pod has 10240 MiB"):
        await predict(pool, version)
    assert smaller.loads == 0
