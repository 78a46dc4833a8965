"""The sidecar follows `runtime.json`: it attaches what is up and lets go of what is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest

from marway.deadline import Deadline
from marway.errors import RuntimeDown
from marway.settings import load_settings
from marway.wire.envelope import Part, Row
from marway.wire.runtime import RUNTIME_FILE, RuntimeInfo, read_runtime_info, write_runtime_info
from marway_sidecar.backends.base import Backend, NotSent, ServedModel
from marway_sidecar.backends.torchserve import TorchServeAdapter, TorchServeBackend
from marway_sidecar.backends.torchserve.proto import management_pb2
from marway_sidecar.backends.watch import ServerWatch
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.settings import SidecarSettings
from support.pod import FakeServer
from support.pools import PoolRoom
from support.registry import until


def info(boot_id: str, *, grpc_inference: str = "127.0.0.1:9", grpc_management: str = "127.0.0.1:9") -> RuntimeInfo:
    return RuntimeInfo(
        boot_id=boot_id,
        pid=1,
        addresses={
            "inference": "http://127.0.0.1:9",
            "management": "http://127.0.0.1:9",
            "metrics": "http://127.0.0.1:9",
            "grpc_inference": grpc_inference,
            "grpc_management": grpc_management,
        },
        model_store=Path("/nowhere"),
        envelope=1,
        max_request_bytes=1024,
        memory_limit_bytes=1024,
        versions={"torchserve": "0.12.0"},
    )


@asynccontextmanager
async def watching(directory: Path, pool: ModelPool, *, probe_s: float = 3600) -> AsyncIterator[ServerWatch]:
    settings = load_settings(
        SidecarSettings, runtime_dir=directory, runtime_probe_interval_s=probe_s, runtime_probe_timeout_s=1.0
    )
    watch = ServerWatch(TorchServeBackend(settings), pool.attach, poll_s=0.01)
    async with running(watch):
        yield watch


@asynccontextmanager
async def running(watch: ServerWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run(), name="watch")
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Managed:
    """A management API that answers, falls silent as a frozen one does, or goes away."""

    address: str

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def start(self, address: str = "127.0.0.1:0") -> str:
        async def models(request: object, context: object) -> management_pb2.ManagementResponse:
            await self.speaks.wait()
            self.heard.set()
            return management_pb2.ManagementResponse(msg='{"models": []}')

        self._server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler(
            "org.pytorch.serve.grpc.management.ManagementAPIsService",
            {
                "ListModels": grpc.unary_unary_rpc_method_handler(
                    models,
                    request_deserializer=management_pb2.ListModelsRequest.FromString,
                    response_serializer=management_pb2.ManagementResponse.SerializeToString,
                )
            },
        )
        self._server.add_generic_rpc_handlers((handler,))
        port = self._server.add_insecure_port(address)
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(0)


@pytest.fixture
async def managed() -> AsyncIterator[Managed]:
    """A management API that answers."""
    made = Managed()
    made.address = await made.start()
    yield made
    await made.stop()


@pytest.fixture
def pool(room: PoolRoom) -> ModelPool:
    return room.pool()


async def test_each_boot_is_attached_and_a_gone_one_let_go(tmp_path: Path, pool: ModelPool, managed: Managed) -> None:
    """A file that appears, changes and goes away attaches a server, another one, and none."""
    async with watching(tmp_path, pool) as watch:
        assert pool.server is None
        for boot_id in ("first", "second"):
            write_runtime_info(tmp_path, info(boot_id, grpc_management=managed.address))
            await until(lambda boot_id=boot_id: watch.info is not None and watch.info.boot_id == boot_id)
            assert pool.server is not None
        (tmp_path / RUNTIME_FILE).unlink()
        await until(lambda: watch.info is None)
        assert pool.server is None


async def test_a_file_that_cannot_be_read_is_an_absent_server(
    tmp_path: Path, pool: ModelPool, managed: Managed
) -> None:
    """A damaged file means that no server is known, and the next good one is followed."""
    async with watching(tmp_path, pool) as watch:
        write_runtime_info(tmp_path, info("first", grpc_management=managed.address))
        await until(lambda: watch.info is not None)
        (tmp_path / RUNTIME_FILE).write_text("{")
        await until(lambda: watch.info is None)
        write_runtime_info(tmp_path, info("second", grpc_management=managed.address))
        await until(lambda: watch.info is not None)


async def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    """What says where the management API answers is readable by its owner only, and reads back as written."""
    write_runtime_info(tmp_path, info("first"))
    assert (tmp_path / RUNTIME_FILE).stat().st_mode & 0o777 == 0o600
    assert read_runtime_info(tmp_path) == info("first")


async def test_a_call_that_found_no_connection_was_not_sent(tmp_path: Path) -> None:
    """A TorchServe that takes no connection ends a call in "not sent", over gRPC and over REST."""
    adapter = TorchServeAdapter(info("first"), runtime_dir=tmp_path)
    model = ServedModel("mv_X", "some", "1.0", Path("x.mar"), 1, 1.0, 1.0)
    for size in (1, 2 * 1024 * 1024):
        with pytest.raises(NotSent):
            await adapter.predict(model, [Row("r", [Part("data", b"x" * size)])], Deadline.after(60))
    await adapter.aclose()


@pytest.mark.parametrize("how", ["gone", "frozen"])
async def test_a_server_that_is_silent_is_let_go_of_whatever_the_file_says(
    tmp_path: Path, pool: ModelPool, managed: Managed, how: str
) -> None:
    """A TorchServe that does not answer is none, also when the runtime's file says that it is up, until it answers."""
    write_runtime_info(tmp_path, info("first", grpc_management=managed.address))
    async with watching(tmp_path, pool, probe_s=0.01) as watch:
        await until(lambda: pool.server is not None)
        assert watch.info is not None
        if how == "gone":
            await managed.stop()
        else:
            managed.speaks.clear()
        await until(lambda: pool.server is None)
        assert watch.info is None
        assert "does not answer" in watch.trouble
        if how == "gone":
            await managed.start(managed.address)
        else:
            managed.speaks.set()
        await until(lambda: pool.server is not None)
        assert watch.info is not None


async def test_a_call_whose_server_goes_away_is_told_so(tmp_path: Path) -> None:
    """A request in flight when its TorchServe is let go of gets "runtime down", which another pod may answer."""
    asked = asyncio.Event()

    async def never(request: object, context: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "org.pytorch.serve.grpc.inference.InferenceAPIsService",
        {"Predictions": grpc.unary_unary_rpc_method_handler(never)},
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        adapter = TorchServeAdapter(info("first", grpc_inference=f"127.0.0.1:{port}"), runtime_dir=tmp_path)
        model = ServedModel("mv_X", "some", "1.0", Path("x.mar"), 1, 1.0, 1.0)
        call = asyncio.create_task(adapter.predict(model, [Row("r", [Part("data", b"x")])], Deadline.after(60)))
        await asyncio.wait_for(asked.wait(), 30)
        await adapter.aclose()
        with pytest.raises(RuntimeDown):
            await asyncio.wait_for(call, 30)
    finally:
        await server.stop(0)


async def test_a_file_of_another_engine_is_an_absent_server(tmp_path: Path, pool: ModelPool, managed: Managed) -> None:
    """What a runtime with another engine announces is not taken for TorchServe, and the next TorchServe is followed."""
    other = info("other", grpc_management=managed.address).model_copy(update={"engine": "native"})
    write_runtime_info(tmp_path, other)
    assert TorchServeBackend(load_settings(SidecarSettings, runtime_dir=tmp_path)).connect() is None
    async with watching(tmp_path, pool) as watch:
        write_runtime_info(tmp_path, info("first", grpc_management=managed.address))
        await until(lambda: watch.info is not None)
        write_runtime_info(tmp_path, other)
        await until(lambda: watch.info is None)


class Replaceable(Backend):
    """Has a server of its own in memory, and another whenever it connects anew."""

    serves = frozenset({"torchserve"})

    def connect(self) -> FakeServer:
        self.server = FakeServer()
        return self.server

    def trouble(self, *, found: bool) -> str:
        return "it is away"


async def test_a_server_that_lost_what_it_had_is_another(pool: ModelPool) -> None:
    """A backend whose server is only asked is attached to the next one, with another boot id, when it was restarted."""

    async def restarted(*, timeout_s: float) -> bool:
        return False

    backend = Replaceable(load_settings(SidecarSettings, runtime_probe_interval_s=0.01))
    watch = ServerWatch(backend, pool.attach, poll_s=3600)
    async with running(watch):
        await until(lambda: pool.server is not None)
        first = backend.server
        assert watch.info == first.info
        first.is_same = restarted  # type: ignore[method-assign]
        await until(lambda: pool.server not in (None, first))
        assert watch.info == backend.server.info != first.info
        backend.server.down = True
        down = backend.server
        await until(lambda: pool.server not in (None, down))
