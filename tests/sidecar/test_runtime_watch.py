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
from marway.wire.envelope import Part, Row
from marway.wire.runtime import RUNTIME_FILE, Addresses, RuntimeInfo, read_runtime_info, write_runtime_info
from marway_sidecar.adapters.base import ServedModel
from marway_sidecar.adapters.torchserve import TorchServeAdapter
from marway_sidecar.pool import ModelPool
from marway_sidecar.runtime_watch import RuntimeWatch
from support.pools import PoolRoom
from support.registry import until


def info(boot_id: str, *, grpc_inference: str = "127.0.0.1:9") -> RuntimeInfo:
    return RuntimeInfo(
        boot_id=boot_id,
        pid=1,
        addresses=Addresses(
            inference="http://127.0.0.1:9",
            management="http://127.0.0.1:9",
            metrics="http://127.0.0.1:9",
            grpc_inference=grpc_inference,
            grpc_management="127.0.0.1:9",
        ),
        model_store=Path("/nowhere"),
        envelope=1,
        max_request_bytes=1024,
        memory_limit_bytes=1024,
        versions={"torchserve": "0.12.0"},
    )


@asynccontextmanager
async def watching(directory: Path, pool: ModelPool) -> AsyncIterator[RuntimeWatch]:
    watch = RuntimeWatch(directory, pool, poll_s=0.01)
    task = asyncio.create_task(watch.run(), name="watch")
    try:
        yield watch
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def pool(room: PoolRoom) -> ModelPool:
    return room.pool()


async def test_each_boot_is_attached_and_a_gone_one_let_go(tmp_path: Path, pool: ModelPool) -> None:
    """A file that appears, changes and goes away attaches a server, another one, and none."""
    async with watching(tmp_path, pool) as watch:
        assert pool.server is None
        for boot_id in ("first", "second"):
            write_runtime_info(tmp_path, info(boot_id))
            await until(lambda boot_id=boot_id: watch.info is not None and watch.info.boot_id == boot_id)
            assert pool.server is not None
        (tmp_path / RUNTIME_FILE).unlink()
        await until(lambda: watch.info is None)
        assert pool.server is None


async def test_a_file_that_cannot_be_read_is_an_absent_server(tmp_path: Path, pool: ModelPool) -> None:
    """A damaged file means that no server is known, and the next good one is followed."""
    async with watching(tmp_path, pool) as watch:
        write_runtime_info(tmp_path, info("first"))
        await until(lambda: watch.info is not None)
        (tmp_path / RUNTIME_FILE).write_text("{")
        await until(lambda: watch.info is None)
        write_runtime_info(tmp_path, info("second"))
        await until(lambda: watch.info is not None)


async def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    """What says where the management API answers is readable by its owner only, and reads back as written."""
    write_runtime_info(tmp_path, info("first"))
    assert (tmp_path / RUNTIME_FILE).stat().st_mode & 0o777 == 0o600
    assert read_runtime_info(tmp_path) == info("first")


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
