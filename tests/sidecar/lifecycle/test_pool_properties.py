"""Whatever requests, unloads, losses and restarts come in whatever order, the pool keeps its promises."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, MarwayError, ModelLoading, RuntimeDown
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import ServingSettings
from marway_sidecar.backends.base import NotLoaded
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.threads import Threads
from support.fake_server import MIB, FakeServer
from support.pools import PoolRoom, predict
from support.registry import publish

VERSIONS = 6
BUDGET = 35 * MIB  # three workers of 10 MiB
SERVINGS = [
    ServingSettings(max_workers=2),
    ServingSettings(max_workers=1),
    ServingSettings(min_workers=0, max_workers=1),
    ServingSettings(max_workers=1, idle_unload_s=0.05),
    ServingSettings(max_workers=1),
    ServingSettings(max_workers=1, pinned=True),
]

index = st.integers(0, VERSIONS - 1)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("requests"), index, st.integers(1, 6)),
        st.tuples(st.just("request that leaves"), index, st.just(0)),
        st.tuples(st.just("request in a hurry"), index, st.just(0)),
        st.tuples(st.just("unload"), index, st.just(0)),
        st.tuples(st.just("lose"), index, st.just(0)),
        st.tuples(st.just("fail loads"), index, st.just(0)),
        st.tuples(st.just("let load"), index, st.just(0)),
        st.tuples(st.just("new server"), index, st.just(0)),
        st.tuples(st.just("pause"), index, st.integers(0, 20)),
    ),
    min_size=5,
    max_size=40,
)


class Schedule:
    """Runs operations against a pool and checks what must hold at every step and at the end."""

    def __init__(self, pool: ModelPool, versions: list[VersionRecord]) -> None:
        self.pool = pool
        self.versions = versions
        self.server = self.new_server()
        self.servers = [self.server]
        self.tasks: list[asyncio.Task[object]] = []

    def new_server(self) -> FakeServer:
        server = FakeServer(load_s=0.002, call_s=0.003)
        self.pool.attach(server)
        return server

    async def run(self, steps: list[tuple[str, int, int]]) -> None:
        for what, number, amount in steps:
            self.step(what, number, amount)
            await asyncio.sleep(amount / 1000 if what == "pause" else 0)
            self.check()
        self.server.failures.clear()
        outcomes = await asyncio.wait_for(asyncio.gather(*self.tasks, return_exceptions=True), 60)
        for outcome in outcomes:
            # Every waiter got an answer or an error that says why; nobody hangs, nobody gets another's answer.
            assert outcome is None or isinstance(outcome, MarwayError | asyncio.CancelledError), repr(outcome)
        self.check()
        while self.pool.in_flight:
            await asyncio.sleep(0.001)

    def step(self, what: str, number: int, amount: int) -> None:
        version = self.versions[number]
        match what:
            case "requests":
                self.tasks += [asyncio.create_task(self.request(number)) for _ in range(amount)]
            case "request that leaves":
                task = asyncio.create_task(self.request(number))
                self.tasks.append(task)
                asyncio.get_running_loop().call_later(0.004, task.cancel)
            case "request in a hurry":
                self.tasks.append(asyncio.create_task(self.request(number, timeout_s=0.006)))
            case "unload":
                self.tasks.append(asyncio.create_task(self.unload(version)))
            case "lose":
                if self.server.held.get(version.id) is not None and not self.server.held[version.id].in_flight:
                    self.server.lose(version.id)
            case "fail loads":
                self.server.failures[version.name] = LoadFailed("broken for now")
            case "let load":
                self.server.failures.pop(version.name, None)
            case "new server":
                self.server.down = True
                self.server = self.new_server()
                self.servers.append(self.server)

    async def request(self, number: int, *, timeout_s: float = 30.0) -> None:
        version = self.versions[number]
        try:
            answered = await predict(self.pool, version, SERVINGS[number], timeout_s=timeout_s)
        except (NotLoaded, RuntimeDown):
            return
        except (DeadlineExceeded, ModelLoading):
            assert timeout_s < 1, "a request with time enough hung"
            raise
        assert answered == version.id

    async def unload(self, version: VersionRecord) -> None:
        await self.pool.unload(version.id, Deadline.after(30))

    def check(self) -> None:
        used, budget = self.pool.memory()
        assert budget == BUDGET
        assert used <= BUDGET
        for server in self.servers:
            assert server.violations == []
            assert server.peak_bytes <= BUDGET


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Registry, list[VersionRecord]]:
    """Versions for all runs; publishing them to stable storage would be the slowest part of each."""
    directory = tmp_path_factory.mktemp("published")
    registry = Registry(DirectoryStore(directory / "registry"))
    return directory, registry, [publish(registry, directory, f"m{number}", "1.0") for number in range(VERSIONS)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=operations)
def test_promises_hold_in_every_order(
    published: tuple[Path, Registry, list[VersionRecord]], steps: list[tuple[str, int, int]]
) -> None:
    """The budget is never exceeded, no worker goes with work in it, one version's operations never overlap, and
    everybody who waits is answered."""

    async def run() -> None:
        directory, registry, versions = published
        threads = Threads(2)
        room = PoolRoom(directory, registry, threads)
        try:
            with TemporaryDirectory() as runtime_dir:
                pool = room.pool(
                    runtime_dir=Path(runtime_dir),
                    memory_budget_bytes=BUDGET,
                    load_failure_backoff_s=0.005,
                    survey_interval_s=0.01,
                    scale_up_wait_s=0.002,
                    scale_down_s=0.02,
                    scale_to_zero_s=0.03,
                    expected_load_s=0.001,
                )
                await Schedule(pool, versions).run(steps)
                await room.aclose()
        finally:
            await room.aclose()
            threads.close()

    asyncio.run(run())
