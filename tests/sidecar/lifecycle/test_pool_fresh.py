"""A pod that has measured nothing yet, and more hot versions than its guesses have room for."""

from __future__ import annotations

import asyncio
from typing import Self

import pytest

from marway.errors import Unavailable
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway_sidecar.lifecycle import ModelPool
from support.fake_server import MIB, FakeServer, limited
from support.pools import PoolRoom, predict, state
from support.registry import until

TWO = ServingSettings(max_workers=2, max_batch_rows=1)


class Clients:
    """So many clients of each version that ask again as soon as they have an answer, until the block ends."""

    def __init__(self, pool: ModelPool, versions: list[VersionRecord], each: int, serving: ServingSettings) -> None:
        self.answered = dict.fromkeys((version.name for version in versions), 0)
        self._pool = pool
        self._serving = serving
        self._clients = [version for version in versions for _ in range(each)]

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(version)) for version in self._clients]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, version: VersionRecord) -> None:
        while True:
            await predict(self._pool, version, self._serving)
            self.answered[version.name] += 1


async def test_fault_hot_versions_on_a_fresh_pod(room: PoolRoom) -> None:
    """With guesses for six versions in the budget and clients that never pause, all sixteen are measured and answer."""
    pool, server = (
        room.pool(memory_budget_bytes=64 * MIB, scale_up_wait_s=0.01),
        FakeServer(worker_bytes=MIB // 2, call_s=0.02, load_s=None),
    )
    pool.attach(server)
    versions = room.versions(16)
    async with Clients(pool, versions, 4, TWO) as clients:
        await until(lambda: all(state(pool, version) == "loading" for version in versions))
        server.go.set()
        await until(lambda: all(clients.answered.values()), within_s=5)
    assert server.violations == []


async def test_a_load_takes_back_second_workers(room: PoolRoom) -> None:
    """A version that is never idle gives up its second worker for another's first, and gets none while that waits."""
    pool, server = room.pool(memory_budget_bytes=24 * MIB, scale_up_wait_s=0.01), FakeServer(call_s=0.02)
    pool.attach(server)
    hot, cold = room.versions(2)
    async with Clients(pool, [hot], 4, TWO) as clients:
        await until(lambda: server.peak_calls == 2)
        assert await predict(pool, cold) == cold.id
        before = clients.answered[hot.name]
        await until(lambda: clients.answered[hot.name] > before + 4)
        assert (state(pool, hot), state(pool, cold)) == ("ready", "ready")
    assert "unload m0" not in server.history
    assert server.violations == []


async def test_a_wait_for_memory_ends_though_others_move(room: PoolRoom) -> None:
    """A load is refused after `memory_wait_max_s` with what takes the memory, however much goes on around it."""
    pool, server = room.pool(memory_budget_bytes=24 * MIB, memory_wait_max_s=1.0), FakeServer(sizes={"m0": 15 * MIB})
    pool.attach(server)
    large, other, third = room.versions(3)
    await predict(pool, large)
    await until(lambda: pool.memory()[0] == 15 * MIB + 40 * 1024)
    server.call_s = None
    busy = asyncio.create_task(predict(pool, large))
    await until(lambda: pool.in_flight == 1)

    async def come_and_go() -> None:
        while True:
            await asyncio.gather(predict(pool, third, timeout_s=0.1), return_exceptions=True)
            pool._instance.memory.release("of another version")

    moves = asyncio.create_task(come_and_go())
    with pytest.raises(Unavailable, match=r"turn for memory did not come within 1 s \(1 versions that are in use"):
        await predict(pool, other)
    moves.cancel()
    server.answer.set()
    await busy


async def test_callers_who_come_during_a_load_ahead_are_not_refused_with_it(room: PoolRoom) -> None:
    """A reload that finds no memory free is refused only while nobody waits: a caller's load takes others' place."""
    pool, first = room.pool(memory_reserve_bytes=0), FakeServer(info=limited(24 * MIB))
    pool.attach(first)
    one, two = room.versions(2)
    await predict(pool, one)
    await predict(pool, two)
    pool.attach(None)
    pool.attach(FakeServer(info=limited(12 * MIB)))  # both are to be loaded again, and one of them fits
    await asyncio.sleep(0)  # the loads ahead have begun
    assert await predict(pool, one) == one.id
