"""The model pool: loads once, remembers failures, follows the model server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from marway.deadline import Deadline
from marway.errors import LoadFailed, ModelLoading, RuntimeDown
from marway.records import ServingSettings, VersionRecord
from marway.registry import Registry
from marway.settings import load_settings
from marway.wire.envelope import Answer, Row
from marway_sidecar.adapters.base import Description, NotLoaded, ServedModel
from marway_sidecar.archives import ArchiveStore
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.pool import ModelPool
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

SERVING = ServingSettings()


class HeldServer:
    """A model server whose loads end when the test says so: real ones cannot be held at a moment of choice."""

    def __init__(self) -> None:
        self.loads = 0
        self.go = asyncio.Event()
        self.loading = asyncio.Event()
        self.failure: LoadFailed | None = None

    async def load(self, model: ServedModel) -> Description:
        self.loads += 1
        self.loading.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return Description(model.version, 1, 1)

    async def unload(self, model: ServedModel) -> None:
        raise AssertionError("nothing is unloaded here")

    async def scale(self, model: ServedModel, workers: int) -> Description:
        raise AssertionError("nothing is scaled here")

    async def describe(self, model: ServedModel) -> Description | None:
        return None

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        raise AssertionError("the test leases, and predicts nothing")

    async def aclose(self) -> None:
        return


@pytest.fixture
def pool(tmp_path: Path, registry: Registry, threads: Threads, metrics: SidecarMetrics) -> ModelPool:
    archives = ArchiveStore(tmp_path / "store", registry, observe=lambda outcome, duration_s: None)
    return ModelPool(archives, threads, metrics, settings=load_settings(SidecarSettings, load_failure_backoff_s=200.0))


async def leased(pool: ModelPool, record: VersionRecord, *, timeout_s: float = 30.0) -> str:
    async with pool.lease(record, SERVING, Deadline.after(timeout_s)) as lease:
        return lease.model.server_name


def loads(metrics: SidecarMetrics, outcome: str) -> float | None:
    labels = {"model": "some", "version": "1.0", "outcome": outcome}
    return metrics.registry.get_sample_value("marway_sidecar_model_loads_total", labels)


async def test_fifty_requests_make_one_load(pool: ModelPool, record: VersionRecord, metrics: SidecarMetrics) -> None:
    """Fifty requests that meet an absent version wait for one load, and all get it."""
    server = HeldServer()
    pool.attach(server)
    waiting = [asyncio.create_task(leased(pool, record)) for _ in range(50)]
    await server.loading.wait()
    server.go.set()
    assert set(await asyncio.gather(*waiting)) == {record.id}
    assert server.loads == 1
    assert loads(metrics, "ok") == 1
    assert metrics.registry.get_sample_value("marway_sidecar_models", {"state": "ready"}) == 1
    (status,) = pool.statuses()
    assert (status.state, status.workers, status.requests_in_flight) == ("ready", 1, 0)


async def test_a_caller_that_leaves_does_not_take_the_load_with_it(pool: ModelPool, record: VersionRecord) -> None:
    """Cancelling the request that began a load leaves the load to those that wait for it."""
    server = HeldServer()
    pool.attach(server)
    first = asyncio.create_task(leased(pool, record))
    await server.loading.wait()
    second = asyncio.create_task(leased(pool, record))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.go.set()
    assert await second == record.id
    assert server.loads == 1


async def test_a_deadline_ends_the_wait_and_not_the_load(pool: ModelPool, record: VersionRecord) -> None:
    """A request whose deadline passes during a load is told when to come back; the load goes on."""
    server = HeldServer()
    pool.attach(server)
    with pytest.raises(ModelLoading) as raised:
        await leased(pool, record, timeout_s=0.05)
    assert raised.value.retry_after_s is not None
    server.go.set()
    assert await leased(pool, record) == record.id
    assert server.loads == 1


async def test_a_failed_load_is_remembered(pool: ModelPool, record: VersionRecord, metrics: SidecarMetrics) -> None:
    """A version that failed is not tried again during its pause; each request gets the reason at once."""
    server = HeldServer()
    server.failure = LoadFailed("no such weights", model="some", version="1.0")
    server.go.set()
    pool.attach(server)
    for _ in range(3):
        with pytest.raises(LoadFailed, match="no such weights"):
            await leased(pool, record)
    assert server.loads == 1
    assert loads(metrics, "failed") == 1
    (status,) = pool.statuses()
    assert (status.state, status.failure) == ("failed", "no such weights")
    assert status.retry_after_s is not None
    assert status.retry_after_s > 100


async def test_a_new_server_starts_from_nothing(pool: ModelPool, record: VersionRecord) -> None:
    """Whatever was loaded or failed in one server is loaded again in the next."""
    first, second = HeldServer(), HeldServer()
    first.go.set()
    second.go.set()
    pool.attach(first)
    await leased(pool, record)
    pool.attach(None)
    with pytest.raises(RuntimeDown):
        await leased(pool, record)
    pool.attach(second)
    await leased(pool, record)
    assert (first.loads, second.loads) == (1, 1)


async def test_a_server_that_dies_during_a_load_hangs_nobody(pool: ModelPool, record: VersionRecord) -> None:
    """Requests that wait for a load are told at once when its server goes away."""
    server = HeldServer()
    pool.attach(server)
    waiting = asyncio.create_task(leased(pool, record))
    await server.loading.wait()
    pool.attach(None)
    with pytest.raises(RuntimeDown):
        await asyncio.wait_for(waiting, 30)


async def test_a_version_that_the_server_lost_is_loaded_again(pool: ModelPool, record: VersionRecord) -> None:
    """When the server says that it does not know a version, the next request loads it."""
    server = HeldServer()
    server.go.set()
    pool.attach(server)
    with pytest.raises(NotLoaded):
        async with pool.lease(record, SERVING, Deadline.after(30)):
            raise NotLoaded("forgotten")
    await leased(pool, record)
    assert server.loads == 2
