"""The model pool: loads once, remembers failures, follows the model server."""

from __future__ import annotations

import asyncio
import logging

import pytest

from marway.deadline import Deadline
from marway.errors import (
    Draining,
    LoadFailed,
    ModelLoading,
    RegistryUnavailable,
    RuntimeDown,
    Unavailable,
)
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.changes import Changes
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.metrics import SidecarMetrics
from support.fake_server import FakeServer
from support.pools import PoolRoom, predict, state
from support.registry import until

SERVING = ServingSettings(max_workers=1)


@pytest.fixture
def pool(room: PoolRoom, metrics: SidecarMetrics) -> ModelPool:
    return room.pool(metrics, load_failure_backoff_s=200.0)


def loads(metrics: SidecarMetrics, outcome: str) -> float | None:
    labels = {"model": "some", "version": "1.0", "outcome": outcome}
    return metrics.registry.get_sample_value("marway_sidecar_model_loads_total", labels)


async def test_fifty_requests_make_one_load(pool: ModelPool, record: VersionRecord, metrics: SidecarMetrics) -> None:
    """Fifty requests that meet an absent version wait for one load, and all get their answer."""
    server = FakeServer(load_s=None)
    pool.attach(server)
    waiting = [asyncio.create_task(predict(pool, record)) for _ in range(50)]
    await server.loading.wait()
    assert pool.statuses()[0].requests_queued == 50
    server.go.set()
    assert set(await asyncio.gather(*waiting)) == {record.id}
    assert server.history == ["load some"]
    assert server.peak_calls == 1
    assert loads(metrics, "ok") == 1
    assert metrics.registry.get_sample_value("marway_sidecar_models", {"state": "ready"}) == 1
    assert metrics.registry.get_sample_value("marway_sidecar_queue_duration_seconds_count") == 50
    (status,) = pool.statuses()
    assert (status.state, status.workers, status.requests_in_flight) == ("ready", 1, 0)


async def test_a_load_tells_its_phases(
    pool: ModelPool, record: VersionRecord, metrics: SidecarMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    """Each phase of a load is counted once, and the log line of the load has them in their order."""
    caplog.set_level(logging.INFO)
    pool.attach(FakeServer())
    await predict(pool, record)
    (line,) = (line for line in caplog.records if "is ready after" in line.message)
    phases: dict[str, float] = vars(line)["fields"]["phases_ms"]
    assert list(phases) == ["look", "fetch", "reserve", "register"]  # nothing warms up a pool without a `warm`
    counted = "marway_sidecar_model_load_phase_duration_seconds_count"
    assert {metrics.registry.get_sample_value(counted, {"phase": phase}) for phase in phases} == {1}


async def test_a_caller_that_leaves_does_not_take_the_load_with_it(pool: ModelPool, record: VersionRecord) -> None:
    """Cancelling the request that began a load leaves the load to those that wait for it."""
    server = FakeServer(load_s=None)
    pool.attach(server)
    first = asyncio.create_task(predict(pool, record))
    await server.loading.wait()
    second = asyncio.create_task(predict(pool, record))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.go.set()
    assert await second == record.id
    assert server.loads == 1


async def test_a_request_whose_deadline_is_too_short_for_a_load_is_told_at_once(
    room: PoolRoom, record: VersionRecord
) -> None:
    """A request that a load of the expected length would outlast is told when to come back; the load goes on."""
    pool, server = room.pool(expected_load_s=40.0), FakeServer(load_s=None)
    pool.attach(server)
    with pytest.raises(ModelLoading) as raised:
        await asyncio.wait_for(predict(pool, record, timeout_s=30.0), 20)
    assert raised.value.retry_after_s == pytest.approx(40.0, abs=5)
    await server.loading.wait()
    server.go.set()
    await until(lambda: state(pool, record) == "ready")
    assert await predict(pool, record) == record.id
    assert server.loads == 1


async def test_a_deadline_ends_the_wait_and_not_the_load(room: PoolRoom, record: VersionRecord) -> None:
    """A request whose deadline passes during a load that takes longer than expected leaves; the load goes on."""
    pool, server = room.pool(expected_load_s=0.01), FakeServer(load_s=None)
    pool.attach(server)
    with pytest.raises(ModelLoading, match="was not ready within the deadline"):
        await predict(pool, record, timeout_s=0.1)
    server.go.set()
    assert await predict(pool, record) == record.id
    assert server.loads == 1


async def test_a_failed_load_is_remembered(pool: ModelPool, record: VersionRecord, metrics: SidecarMetrics) -> None:
    """A version that failed is not tried again during its pause; each request gets the reason at once."""
    server = FakeServer(failures={"some": LoadFailed("no such weights")})
    pool.attach(server)
    for _ in range(3):
        with pytest.raises(LoadFailed, match="no such weights"):
            await predict(pool, record)
    assert server.history == ["load some", "unload some"]
    assert loads(metrics, "failed") == 1
    (status,) = pool.statuses()
    assert (status.state, status.failure, status.failures) == ("failed", "no such weights", 1)
    assert status.retry_after_s is not None
    assert status.retry_after_s > 100
    assert pool.memory()[0] == 0


async def test_the_pause_grows_and_a_success_ends_it(room: PoolRoom, record: VersionRecord) -> None:
    """After its pause a failed version is tried again with the next request; each failure doubles the pause."""
    pool, server = room.pool(load_failure_backoff_s=0.05), FakeServer(failures={"some": LoadFailed("not yet")})
    pool.attach(server)
    for failures in (1, 2, 3):
        with pytest.raises(LoadFailed):
            await predict(pool, record)
        (status,) = pool.statuses()
        assert status.failures == failures
        assert status.retry_after_s is not None
        assert status.retry_after_s > 0.025 * 2 ** (failures - 1)
        await until(lambda: pool.statuses()[0].retry_after_s == 0)
    server.failures.clear()
    assert await predict(pool, record) == record.id
    (status,) = pool.statuses()
    assert (status.state, status.failures, status.failure) == ("ready", 0, None)


async def test_a_version_that_nobody_asks_for_is_forgotten(
    room: PoolRoom, record: VersionRecord, metrics: SidecarMetrics
) -> None:
    """A failed version goes from the list, and its labels from the metrics, some time after it was last wanted."""
    pool = room.pool(metrics, load_failure_backoff_s=0.01, forget_s=0.05)
    pool.attach(FakeServer(failures={"some": LoadFailed("never")}))
    with pytest.raises(LoadFailed):
        await predict(pool, record)
    assert loads(metrics, "failed") == 1
    await until(lambda: pool.statuses() == ())
    assert loads(metrics, "failed") is None


async def test_what_says_nothing_about_the_version_is_not_held_against_it(
    pool: ModelPool, record: VersionRecord
) -> None:
    """A load that fails because a store is away leaves no failure: the next request tries again."""
    server = FakeServer(failures={"some": RegistryUnavailable("the store is away")})
    pool.attach(server)
    with pytest.raises(RegistryUnavailable):
        await predict(pool, record)
    assert state(pool, record) == "absent"
    server.failures.clear()
    assert await predict(pool, record) == record.id


async def test_a_load_that_takes_too_long_is_ended_and_undone(
    room: PoolRoom, record: VersionRecord, metrics: SidecarMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load beyond its time-out fails with that reason, and nothing of it is left in the server."""
    monkeypatch.setattr("marway_sidecar.lifecycle.transitions._GRACE_S", 0.0)
    pool, server = room.pool(metrics), FakeServer(load_s=None)
    pool.attach(server)
    with pytest.raises(LoadFailed, match=r"not loaded within 0\.05 s"):
        await predict(pool, record, ServingSettings(load_timeout_s=0.05))
    assert server.held == {}
    assert loads(metrics, "timeout") == 1


async def test_a_version_that_fails_its_warm_up_is_refused_and_unloaded(room: PoolRoom, record: VersionRecord) -> None:
    """What the warm-up refuses is never shown ready, and nothing of it is left in the server."""
    seen = []

    async def warm(server: ModelServer, model: ServedModel, record: VersionRecord, deadline: Deadline) -> None:
        seen.append((model.name, deadline.left_s() > 0))
        raise LoadFailed("answers otherwise than when it was packed")

    pool, server = room.pool(warm=warm), FakeServer()
    pool.attach(server)
    with pytest.raises(LoadFailed, match="otherwise"):
        await predict(pool, record)
    assert seen == [("some", True)]
    assert server.held == {}
    assert state(pool, record) == "failed"


async def test_a_new_server_gets_what_was_ready_in_the_old_one(pool: ModelPool, record: VersionRecord) -> None:
    """What was ready in one server is loaded into the next without being asked for, and failures are forgotten."""
    first, second = FakeServer(), FakeServer()
    pool.attach(first)
    await predict(pool, record)
    pool.attach(None)
    assert state(pool, record) == "absent"
    with pytest.raises(RuntimeDown):
        await predict(pool, record)
    pool.attach(second)
    await until(lambda: state(pool, record) == "ready")
    assert await predict(pool, record) == record.id
    assert (first.loads, second.loads) == (1, 1)


async def test_fault_servers_that_go_during_a_reload(room: PoolRoom) -> None:
    """Versions that were ready are loaded again however often the server goes before that is done, or stays silent."""
    pool, server = room.pool(), FakeServer()
    versions = room.versions(3)
    pool.attach(server)
    for version in versions:
        await predict(pool, version)
    for _ in range(3):
        pool.attach(None)
        server = FakeServer(load_s=None)
        pool.attach(server)
        await until(lambda server=server: server.loads == 3)
    pool.attach(None)
    server = FakeServer(down=True)
    pool.attach(server)
    await until(lambda: all(state(pool, version) == "absent" for version in versions))
    server.down = False
    await until(lambda: all(state(pool, version) == "ready" for version in versions))


async def test_a_version_that_every_server_dies_of_is_left_alone(room: PoolRoom) -> None:
    """After five servers that went while they loaded it again, a version waits until somebody asks for it."""
    pool = room.pool()
    deadly, other = room.versions(2)
    pool.attach(FakeServer())
    await predict(pool, deadly)
    for _ in range(5):
        pool.attach(None)
        server = FakeServer(load_s=None)
        pool.attach(server)
        await server.loading.wait()
    pool.attach(None)
    last = FakeServer()
    pool.attach(last)
    await predict(pool, other)
    assert last.history == ["load m1"]
    assert await predict(pool, deadly) == deadly.id


async def test_what_is_unloaded_between_two_servers_stays_unloaded(room: PoolRoom) -> None:
    """A version that is unloaded while no server is up is not loaded into the next one."""
    pool = room.pool()
    unloaded, other = room.versions(2)
    pool.attach(FakeServer())
    await predict(pool, unloaded)
    pool.attach(None)
    await pool.unload(unloaded.id, Deadline.after(1))
    last = FakeServer()
    pool.attach(last)
    await predict(pool, other)
    assert last.history == ["load m1"]


@pytest.mark.parametrize("phase", ["load", "call", "queue"])
async def test_a_server_that_dies_hangs_nobody(pool: ModelPool, record: VersionRecord, phase: str) -> None:
    """Requests that wait for a load or in the queue when their server goes away are told at once."""
    server = FakeServer(load_s=None if phase == "load" else 0.0, call_s=None)
    pool.attach(server)
    waiting = [asyncio.create_task(predict(pool, record)) for _ in range(1 if phase == "call" else 3)]
    await (server.loading if phase == "load" else server.calling).wait()
    server.down = True
    pool.attach(None)
    server.answer.set()  # the adapter is closed, so its calls end
    for request in waiting:
        with pytest.raises(RuntimeDown):
            await asyncio.wait_for(request, 30)


async def test_a_version_that_the_server_lost_is_loaded_again(pool: ModelPool, record: VersionRecord) -> None:
    """When the server says that it does not know a version, the request waits for it to be loaded again."""
    server = FakeServer()
    pool.attach(server)
    await predict(pool, record)
    server.lose(record.id)
    assert await predict(pool, record) == record.id
    assert server.loads == 2


async def test_a_load_can_be_asked_for_and_taken_back(pool: ModelPool, record: VersionRecord) -> None:
    """`load` returns once a worker is up, `unload` once it is gone; both do nothing where there is nothing to do."""
    server = FakeServer()
    pool.attach(server)
    for _ in range(2):
        loaded = await pool.load(record, SERVING, Deadline.after(30))
        assert (loaded.state, loaded.workers) == ("ready", 1)
    for _ in range(2):
        assert (await pool.unload(record.id, Deadline.after(30))).state == "absent"
    assert (await pool.unload("nobody-knows-it", Deadline.after(30))).state == "absent"
    assert server.history == ["load some", "unload some"]
    assert pool.memory()[0] == 0


async def test_nothing_new_is_loaded_when_the_pod_stops(room: PoolRoom) -> None:
    """After `refuse_loads` what is loaded goes on answering, and what is not is refused."""
    pool, server = room.pool(), FakeServer()
    first, second = room.versions(2)
    pool.attach(server)
    await predict(pool, first)
    pool.refuse_loads()
    assert await predict(pool, first) == first.id
    with pytest.raises(Draining):
        await predict(pool, second)
    with pytest.raises(Draining):
        await pool.load(second, SERVING, Deadline.after(30))
    assert server.loads == 1


async def test_changes_are_told_as_they_come(room: PoolRoom, record: VersionRecord) -> None:
    """Whoever waits for a change learns of the states of a load as they come, and of no requests."""
    server, changes = FakeServer(load_s=None), Changes()
    pool = room.pool(changes=changes)
    pool.attach(server)
    seen = [state(pool, record)]
    generation = changes.generation
    request = asyncio.create_task(predict(pool, record))
    while seen[-1] != "ready":
        assert await changes.after(generation, timeout_s=30)
        generation = changes.generation
        if state(pool, record) != seen[-1]:
            seen.append(state(pool, record))
        if seen[-1] == "loading":
            server.go.set()
    assert (seen[0], seen[-2:]) == ("unknown", ["loading", "ready"])  # what follows at once is one change
    await request
    await until(lambda: server.bytes + 40 * 1024 == pool.memory()[0])
    quiet = changes.generation
    for _ in range(5):
        await predict(pool, record)
    assert changes.generation == quiet


async def test_a_version_for_another_engine_is_refused(pool: ModelPool, record: VersionRecord) -> None:
    """A version that asks for pods of another engine is not loaded; one that asks for this pod's is."""
    pool.attach(FakeServer())
    elsewhere = ServingSettings(engine="native", max_workers=1)
    with pytest.raises(Unavailable, match=r"is to be served by native .*; this pod is torchserve"):
        await pool.load(record, elsewhere, Deadline.after(5))
    assert pool.statuses() == ()
    here = elsewhere.model_copy(update={"engine": "torchserve"})
    assert (await pool.load(record, here, Deadline.after(5))).state == "ready"
    assert (await pool.load(record, elsewhere, Deadline.after(5))).state == "ready"  # what is there goes on
    await pool.unload(record.id, Deadline.after(5))
    with pytest.raises(Unavailable, match="is to be served by native"):
        await pool.load(record, elsewhere, Deadline.after(5))


async def test_a_version_that_moved_to_another_engine_is_not_loaded_again(
    pool: ModelPool, record: VersionRecord
) -> None:
    """A new server is attached without what was loaded in the old one and is to be served by another engine now."""
    first, second = FakeServer(), FakeServer()
    pool.attach(first)
    await predict(pool, record)
    await pool.load(record, SERVING.model_copy(update={"engine": "native"}), Deadline.after(5))
    pool.attach(second)
    assert pool.server is second
    assert pool.statuses() == ()
    assert await predict(pool, record) == record.id
