"""Every row of a server instance that ends is told so once, in whatever moment of its call that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marway.deadline import Deadline
from marway.errors import MarwayError, RuntimeDown
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Part, Row, encode_answers
from marway.wire.runtime import RuntimeInfo
from marway_sidecar.backends.base import NotLoaded, ServedModel
from marway_sidecar.backends.torchserve import TorchServeAdapter
from marway_sidecar.backends.torchserve.proto import inference_pb2
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.scheduler import Job, StreamJob
from marway_sidecar.threads import Threads
from support.fake_server import FakeServer
from support.pools import ROW, PoolRoom
from support.registry import publish, until

pytestmark = pytest.mark.timeout(120)
SERVING = ServingSettings(max_workers=1, max_batch_rows=4)


class Unexpected(Exception):
    """What an adapter should have translated."""


class Scripted(FakeServer):
    """A model server whose calls end as, and when, the test says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.under_way: list[asyncio.Future[None]] = []

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        self._answers()
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.under_way.append(call)
        await call
        return [Answer(200, b"x", "text")] * len(rows)

    def end(self, error: BaseException | None = None) -> None:
        """End all calls under way."""
        calls, self.under_way = self.under_way, []
        for call in calls:
            if not call.done():
                call.set_result(None) if error is None else call.set_exception(error)


class Schedule:
    """Runs turns of the loop against a pool."""

    def __init__(self, pool: ModelPool, version: VersionRecord) -> None:
        self.pool = pool
        self.version = version
        self.server = Scripted()
        self.servers = [self.server]
        self.jobs: list[Job] = []
        self.broken: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.broken.append(context))
        pool.attach(self.server)

    def ask(self, rows: int) -> None:
        """Have a request come with so many rows; without any it is one whose answer is streamed."""
        deadline = Deadline.after(3600)
        job = Job([ROW] * rows, deadline) if rows else StreamJob(ROW, deadline)
        try:
            scheduler = self.pool.scheduler(self.version, SERVING)
            scheduler.submit(job)
        except MarwayError:
            return  # told at once
        job.future.add_done_callback(lambda _: scheduler.leave(job))
        self.jobs.append(job)

    def step(self, what: str, number: int) -> None:
        match what:
            case "ask":
                self.ask(number)
            case "answer":
                self.server.end()
            case "raise":
                self.server.end(Unexpected())
            case "lost":
                self.server.end(NotLoaded("gone"))
            case "leave" if self.jobs:
                self.jobs[number % len(self.jobs)].future.cancel()
            case "down":
                self.pool.attach(None)
            case "up":
                self.server = Scripted()
                self.servers.append(self.server)
                self.pool.attach(self.server)

    def check(self) -> None:
        """Check what everybody was told."""
        for job in self.jobs:
            assert job.future.done(), "left waiting for an instance that is over"
            error = None if job.future.cancelled() else job.future.exception()
            assert error is None or isinstance(error, RuntimeDown | NotLoaded | Unexpected), repr(error)
        assert not self.broken


@asynccontextmanager
async def scheduled(directory: Path, registry: Registry, version: VersionRecord) -> AsyncIterator[Schedule]:
    threads = Threads(4)
    room = PoolRoom(directory, registry, threads)
    schedule = Schedule(room.pool(memory_budget_bytes=100 * 1024 * 1024), version)
    try:
        yield schedule
    finally:
        schedule.server.end()
        await room.aclose()
        threads.close()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Registry, VersionRecord]:
    directory = tmp_path_factory.mktemp("published")
    registry = Registry(DirectoryStore(directory / "registry"))
    return directory, registry, publish(registry, directory, "some", "1.0")


STEP = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["answer", "raise", "lost", "down", "up"]), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
)


@given(turns=st.lists(st.lists(STEP, min_size=1, max_size=4), max_size=10))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everybody_is_told_once(published: tuple[Path, Registry, VersionRecord], turns: list[Any]) -> None:
    """Answers, failures, lost versions, callers that leave and servers that go, in one turn or several: nobody waits on
    for a server that is gone, and nobody is told twice."""
    _, registry, version = published

    async def main(directory: Path) -> None:
        async with scheduled(directory, registry, version) as schedule:
            loop = asyncio.get_running_loop()

            def turn(steps: list[tuple[str, int]]) -> None:
                for what, number in steps:
                    schedule.step(what, number)

            schedule.ask(1)
            await until(lambda: bool(schedule.server.under_way))
            for steps in turns:
                loop.call_soon(turn, steps)
                await asyncio.sleep(0)
            schedule.pool.attach(None)
            for server in schedule.servers:
                server.down = True  # a call may have been made whose first step is still to come
                server.end(Unexpected())
            for _ in range(50):
                await asyncio.sleep(0)
            schedule.check()

    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:  # a thread may still fetch into it
        asyncio.run(main(Path(directory)))


@pytest.mark.parametrize("rows", [1, 2])
async def test_fault_model_server_goes_in_the_moment_of_a_call(
    published: tuple[Path, Registry, VersionRecord], tmp_path: Path, rows: int
) -> None:
    """Requests in one call that breaks as its instance ends, or after it, do not wait in a queue that is over."""
    _, registry, version = published
    async with scheduled(tmp_path, registry, version) as schedule:
        schedule.ask(1)
        await until(lambda: bool(schedule.server.under_way))
        for _ in range(rows):
            schedule.ask(1)  # they wait, and then go together
        schedule.server.end()
        await until(lambda: schedule.jobs[0].future.done() and bool(schedule.server.under_way))
        schedule.pool.attach(None)
        schedule.server.end(Unexpected())
        await until(lambda: all(job.future.done() for job in schedule.jobs))
        errors = [job.future.exception() for job in schedule.jobs[1:]]
        assert [type(error) for error in errors] == ([Unexpected] if rows == 1 else [RuntimeDown] * rows)
        schedule.check()


# -- the adapter -------------------------------------------------------------------------------------------------

MODEL = ServedModel(
    server_name="m-some",
    name="some",
    version="1.0",
    archive=Path("x.mar"),
    workers=1,
    load_timeout_s=10,
    predict_timeout_s=10,
)
ANSWER = inference_pb2.PredictionResponse(prediction=encode_answers([Answer(200, b"x", "text")])).SerializeToString()


@asynccontextmanager
async def torchserve(directory: Path) -> AsyncIterator[RuntimeInfo]:
    """A TorchServe, as far as its gRPC goes: each call is answered after a turn or two."""

    async def predictions(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0)
        return ANSWER

    async def streamed(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield ANSWER

    class Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # it is no generic when it runs
        def service(self, details: Any) -> Any:
            if details.method.endswith("StreamPredictions"):
                return grpc.unary_stream_rpc_method_handler(streamed)
            return grpc.unary_unary_rpc_method_handler(predictions)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    address = f"127.0.0.1:{port}"
    rest = f"http://{address}"
    try:
        yield RuntimeInfo(
            boot_id="boot",
            pid=1,
            addresses={
                "inference": rest,
                "management": rest,
                "metrics": rest,
                "grpc_inference": address,
                "grpc_management": address,
            },
            model_store=directory,
            envelope=1,
            max_request_bytes=10_000_000,
            memory_limit_bytes=0,
            versions={},
        )
    finally:
        await server.stop(None)


async def piece(adapter: TorchServeAdapter) -> list[Answer]:
    return [answer async for answer in adapter.predict_stream(MODEL, ROW, Deadline.after(30))]


async def large(adapter: TorchServeAdapter) -> list[Answer]:
    row = Row("r", [Part("data", b"x" * 2_000_000)])
    return await adapter.predict(MODEL, [row], Deadline.after(30))


async def small(adapter: TorchServeAdapter) -> list[Answer]:
    return await adapter.predict(MODEL, [ROW], Deadline.after(30))


@pytest.mark.parametrize("ask", [small, large, piece], ids=["grpc", "rest", "stream"])
@pytest.mark.parametrize("turns", range(6))
async def test_connections_that_are_closed_in_the_moment_of_a_call(tmp_path: Path, ask: Any, turns: int) -> None:
    """A call that finds its connection closed, before it begins or at any step, says that the server went down."""
    async with torchserve(tmp_path) as info:
        adapter = TorchServeAdapter(info)
        before = [asyncio.create_task(ask(adapter)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        closing = asyncio.create_task(adapter.aclose())
        beside = [asyncio.create_task(ask(adapter)) for _ in range(3)]
        await closing
        after = [asyncio.create_task(ask(adapter)) for _ in range(3)]
        async with asyncio.timeout(30):
            told = await asyncio.gather(*before, *beside, *after, return_exceptions=True)
        assert all(isinstance(each, RuntimeDown) or (ask is not large and isinstance(each, list)) for each in told), (
            told
        )
        assert all(isinstance(each, RuntimeDown) for each in told[-3:])
