"""Workers of a version: a queue in front of them, more under load, fewer in time, a breaker when they die."""

from __future__ import annotations

import asyncio

import pytest

from marway.errors import DeadlineExceeded, LoadFailed, Overloaded, Unavailable
from marway.serving import ServingSettings
from marway_sidecar.backends.base import ServedModel, WorkerDied
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.scaling import bounds, more
from marway_sidecar.metrics import SidecarMetrics
from support.fake_server import MIB, FakeServer
from support.pools import PoolRoom, predict, state
from support.registry import until

FOUR = ServingSettings(max_workers=4, max_batch_rows=1)
ONE = ServingSettings(max_workers=1, max_batch_rows=1)
NONE = ServingSettings(min_workers=0, max_workers=1)


def workers(pool: ModelPool) -> list[int]:
    return [status.workers for status in pool.statuses()]


async def test_a_queue_brings_more_workers_up_to_the_most(room: PoolRoom) -> None:
    """Requests that wait bring up more workers until there are as many as allowed; each runs one call at a time."""
    pool, server = room.pool(), FakeServer(call_s=None)
    pool.attach(server)
    (version,) = room.versions(1)
    requests = [asyncio.create_task(predict(pool, version, FOUR)) for _ in range(12)]
    await until(lambda: server.peak_calls == 4)
    assert workers(pool) == [4]
    assert server.history == ["load m0", "scale 2 m0", "scale 4 m0"]
    server.answer.set()
    assert await asyncio.gather(*requests) == [version.id] * 12
    assert server.violations == []


async def test_one_client_brings_up_no_second_worker(room: PoolRoom) -> None:
    """Requests one after the other never wait, so one worker stays one."""
    pool, server = room.pool(scale_up_wait_s=0.01), FakeServer(call_s=0.02)
    pool.attach(server)
    (version,) = room.versions(1)
    for _ in range(10):
        await predict(pool, version, FOUR)
    assert server.history == ["load m0"]


async def test_more_workers_need_memory(room: PoolRoom) -> None:
    """A second worker takes only memory that is free, and evicts nobody who was used a moment ago."""
    pool, server = room.pool(memory_budget_bytes=24 * MIB), FakeServer()
    pool.attach(server)
    first, second = room.versions(2)
    await predict(pool, second)
    server.call_s = None
    requests = [asyncio.create_task(predict(pool, first, FOUR)) for _ in range(6)]
    await server.calling.wait()
    with pytest.raises(DeadlineExceeded):  # time enough for the queue to be looked at
        await predict(pool, first, FOUR, timeout_s=0.5)
    assert workers(pool) == [1, 1]
    assert state(pool, second) == "ready"
    server.answer.set()
    await asyncio.gather(*requests)


async def test_a_second_worker_may_take_the_place_of_an_unused_version(room: PoolRoom) -> None:
    """A version that nobody used for `scale_down_s` goes for another's second worker, so that a full pod scales too."""
    pool, server = room.pool(memory_budget_bytes=24 * MIB, scale_down_s=0.1), FakeServer()
    pool.attach(server)
    first, second = room.versions(2)
    await predict(pool, second)
    server.call_s = None
    requests = [asyncio.create_task(predict(pool, first, FOUR)) for _ in range(6)]
    await until(lambda: server.peak_calls == 2)
    assert state(pool, second) == "absent"
    server.answer.set()
    await asyncio.gather(*requests)
    assert server.peak_bytes <= 24 * MIB


async def test_workers_of_no_use_go_in_time(room: PoolRoom) -> None:
    """Workers that were of no use for a while are stopped, down to the fewest, and with no call in flight."""
    pool, server = room.pool(scale_down_s=0.5), FakeServer(call_s=0.05)
    pool.attach(server)
    (version,) = room.versions(1)
    await asyncio.gather(*[predict(pool, version, FOUR) for _ in range(30)])
    assert max(workers(pool)) > 1
    ended = asyncio.Event()

    async def one_after_the_other() -> None:
        while not ended.is_set():
            await predict(pool, version, FOUR)

    client = asyncio.create_task(one_after_the_other())
    await until(lambda: workers(pool) == [1], within_s=30)
    ended.set()
    await client
    assert server.violations == []
    await until(lambda: pool.memory()[0] == server.bytes + 40 * 1024)


async def test_the_last_worker_goes_where_allowed_and_comes_back(room: PoolRoom) -> None:
    """With `min_workers` 0 an unused version ends registered without a worker; the next request starts one."""
    pool, server = room.pool(scale_down_s=0.1, scale_to_zero_s=0.2), FakeServer()
    pool.attach(server)
    (version,) = room.versions(1)
    await predict(pool, version, NONE)
    await until(lambda: workers(pool) == [0], within_s=30)
    assert state(pool, version) == "ready"
    assert pool.memory()[0] < MIB
    assert await predict(pool, version, NONE) == version.id
    assert server.history == ["load m0", "scale 0 m0", "scale 1 m0"]


async def test_a_version_is_unloaded_after_its_idle_time(room: PoolRoom, metrics: SidecarMetrics) -> None:
    """`idle_unload_s` after its last request a version is unloaded and says so, but a pinned one never."""
    pool, server = room.pool(metrics), FakeServer()
    pool.attach(server)
    first, second = room.versions(2)
    await predict(pool, first, ServingSettings(idle_unload_s=0.1, pinned=True, min_workers=0))
    await predict(pool, second, ServingSettings(idle_unload_s=0.1))
    await until(lambda: state(pool, second) == "absent", within_s=30)
    assert state(pool, first) == "ready"
    assert workers(pool) == [1, 0]
    status = pool.status_of(second.id)
    assert status is not None
    assert status.unloaded_at is not None
    assert status.unloaded_for == "idle"
    await predict(pool, second, ServingSettings())
    again = pool.status_of(second.id)
    assert again is not None
    assert again.unloaded_for is None
    assert metrics.registry.get_sample_value("marway_sidecar_model_evictions_total", {"reason": "idle"}) == 1


async def test_the_fewest_workers_are_up_from_the_start_and_follow_the_settings(room: PoolRoom) -> None:
    """A version starts with its `min_workers`; a change of them without republishing is followed."""
    pool, server = room.pool(), FakeServer()
    pool.attach(server)
    (version,) = room.versions(1)
    await predict(pool, version, ServingSettings(min_workers=2))
    assert workers(pool) == [2]
    await predict(pool, version, ServingSettings(min_workers=3))
    await until(lambda: workers(pool) == [3])


async def test_the_queue_is_in_order_and_left_in_time(room: PoolRoom) -> None:
    """Requests get the worker in the order they came; one whose deadline passes in the queue leaves it."""
    pool, server = room.pool(), FakeServer(call_s=None)
    pool.attach(server)
    (version,) = room.versions(1)
    answered: list[int] = []

    async def request(number: int) -> None:
        await predict(pool, version, ONE)
        answered.append(number)

    requests = [asyncio.create_task(request(0))]
    await server.calling.wait()
    for number in range(1, 5):
        requests.append(asyncio.create_task(request(number)))
        await until(lambda number=number: pool.statuses()[0].requests_queued == number)
    with pytest.raises(DeadlineExceeded, match="busy until the deadline"):
        await predict(pool, version, ONE, timeout_s=0.05)
    server.answer.set()
    await asyncio.gather(*requests)
    assert answered == [0, 1, 2, 3, 4]


async def test_a_full_queue_says_when_to_come_back(room: PoolRoom) -> None:
    """More requests than the queue takes are refused with a time from the measured length of a call."""
    pool, server = room.pool(queue_limit=3), FakeServer(call_s=0.2)
    pool.attach(server)
    (version,) = room.versions(1)
    await predict(pool, version, ONE)
    server.call_s = None
    server.calling.clear()
    requests = [asyncio.create_task(predict(pool, version, ONE)) for _ in range(4)]
    await until(lambda: pool.statuses()[0].requests_queued == 3)
    with pytest.raises(Overloaded) as raised:
        await predict(pool, version, ONE)
    assert raised.value.retry_after_s == pytest.approx(0.8, rel=0.5)
    server.answer.set()
    assert await asyncio.gather(*requests) == [version.id] * 4


async def test_a_call_that_outlasts_its_caller_holds_its_worker(room: PoolRoom) -> None:
    """A deadline ends the caller's wait at once; the worker counts as taken until it has finished."""
    pool, server = room.pool(), FakeServer(call_s=None)
    pool.attach(server)
    (version,) = room.versions(1)
    with pytest.raises(DeadlineExceeded):
        await predict(pool, version, ONE, timeout_s=1.5)
    assert pool.statuses()[0].requests_in_flight == 1
    second = asyncio.create_task(predict(pool, version, ONE))
    await until(lambda: pool.statuses()[0].requests_queued == 1)
    server.answer.set()
    assert await second == version.id
    assert server.peak_calls == 1


async def test_a_version_that_keeps_killing_its_worker_is_given_a_pause(room: PoolRoom) -> None:
    """After some deaths in a row callers are told at once to come back; then one tries, and success ends it."""
    pool, server = room.pool(breaker_failures=3, breaker_open_s=0.3), FakeServer()
    pool.attach(server)
    bad, good = room.versions(2)
    healthy, deadly = server.predict, True

    async def deaths(model: ServedModel, rows, deadline):
        if deadly and model.name == "m0":
            raise WorkerDied("died")
        return await healthy(model, rows, deadline)

    server.predict = deaths
    for _ in range(3):
        with pytest.raises(WorkerDied):
            await predict(pool, bad, ONE)
    with pytest.raises(Unavailable, match="given a pause") as raised:
        await predict(pool, bad, ONE)
    assert 0 < raised.value.retry_after_s <= 0.3
    assert await predict(pool, good, ONE) == good.id  # others are unharmed
    deadly = False

    async def answered() -> bool:
        try:
            return await predict(pool, bad, ONE) == bad.id
        except Unavailable:
            return False

    while not await answered():
        await asyncio.sleep(0.02)
    assert await asyncio.gather(*[predict(pool, bad, ONE) for _ in range(5)]) == [bad.id] * 5


async def test_a_hung_worker_opens_the_breaker(room: PoolRoom) -> None:
    """When every worker of a version hangs, callers wait out their deadline a few times and are then told at once."""
    pool, server = room.pool(breaker_failures=3, breaker_open_s=30.0), FakeServer()
    pool.attach(server)
    hung, good = room.versions(2)
    await predict(pool, hung, ONE)
    await predict(pool, good, ONE)
    server.call_s = None
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            await predict(pool, hung, ONE, timeout_s=0.3)
    with pytest.raises(Unavailable, match="given a pause"):
        await predict(pool, hung, ONE, timeout_s=0.3)
    server.answer.set()
    assert await predict(pool, good, ONE) == good.id


async def test_workers_that_cannot_start_leave_those_that_run(room: PoolRoom) -> None:
    """When more workers cannot start, the version goes on with those that it had."""
    pool, server = room.pool(), FakeServer()
    pool.attach(server)
    (version,) = room.versions(1)
    await predict(pool, version, FOUR)
    scale = server.scale

    async def only_one(model: ServedModel, count: int):
        if count > 1:
            server.history.append(f"refused {count}")
            raise LoadFailed("no room for another")
        return await scale(model, count)

    server.scale = only_one
    server.call_s = None
    requests = [asyncio.create_task(predict(pool, version, FOUR)) for _ in range(5)]
    await until(lambda: "refused 2" in server.history)
    server.answer.set()
    assert await asyncio.gather(*requests) == [version.id] * 5
    assert workers(pool) == [1]
    assert pool.memory()[0] < 2 * server.worker_bytes


def test_bounds_and_steps() -> None:
    """None means one worker for each CPU; a pinned version keeps one; each step at most doubles."""
    assert bounds(ServingSettings(), cpus=8) == (1, 8)
    assert bounds(ServingSettings(min_workers=4), cpus=2) == (4, 4)
    assert bounds(ServingSettings(min_workers=0, pinned=True), cpus=2) == (1, 2)
    assert [more(1, queued=1, most=8), more(2, queued=50, most=8), more(4, queued=1, most=8)] == [2, 4, 5]
    assert more(8, queued=9, most=8) == 8
