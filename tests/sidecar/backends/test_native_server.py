"""The backend `native` with a runtime and workers that are the test's own: the real routes, no process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidInput, LoadFailed, MarwayError, Overloaded, RuntimeDown, Unavailable
from marway.settings import load_settings
from marway.wire.envelope import Answer, Part, Row, decode_rows, encode_answers
from marway.wire.native import LoadRequest, ModelState, worker_socket
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeInfo, write_runtime_info
from marway_http.frames import HEADER, Kind, frame_header
from marway_runtime.engines.native.routes import create_router
from marway_sidecar.backends.base import NotLoaded, ServedModel
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.backends.native import NativeServer
from marway_sidecar.settings import SidecarSettings

MODEL = ServedModel("mv_X", "x", "1.0", Path("x.mar"), 1, 10.0, 10.0)


class Engine:
    """Has what it is told to have; each of its workers answers with its number."""

    boot_id = "b1"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.models: dict[str, int] = {}
        self.refuses: MarwayError | None = None
        self.servers: dict[int, asyncio.Server] = {}

    def server_names(self) -> tuple[str, ...]:
        return tuple(self.models)

    def describe(self, server_name: str) -> ModelState | None:
        count = self.models.get(server_name)
        if count is None:
            return None
        return ModelState(version="1.0", workers=count, ready_workers=len(self.servers), answer_within_s=10.0)

    async def load(self, server_name: str, request: LoadRequest) -> ModelState:
        if self.refuses is not None:
            raise self.refuses
        self.models[server_name] = 0
        found = await self.scale(server_name, request.workers)
        assert found is not None
        return found

    async def scale(self, server_name: str, workers: int) -> ModelState | None:
        if server_name not in self.models:
            return None
        self.models[server_name] = workers
        for number in range(workers):
            await self.start(server_name, number)
        return self.describe(server_name)

    async def unload(self, server_name: str) -> None:
        self.models.pop(server_name, None)

    async def start(self, server_name: str, number: int) -> None:
        if number in self.servers:
            return
        path = worker_socket(self.directory, server_name, number)
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame_header(Kind.WINDOW_UPDATE, 0))
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    size, call, _, _, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
                    rows = decode_rows(await reader.readexactly(size)) if size else []
                    if kind == Kind.REQUEST and rows[0].parts[0].value != b"die":
                        body = encode_answers([Answer(200, b"%d" % number, "bytes")] * len(rows))
                        writer.write(frame_header(Kind.ANSWER, call, body=len(body)) + body)
                    elif kind == Kind.REQUEST:
                        break
            writer.close()

        self.servers[number] = await asyncio.start_unix_server(answer, str(path))

    def stop(self, number: int) -> None:
        self.servers.pop(number).close()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(tmp_path)

    async def workers(_: object) -> JSONResponse:
        return JSONResponse({"base_bytes": 7})

    app = Starlette(routes=[Route("/workers", workers)])
    app.router.default = create_router(engine)
    config = uvicorn.Config(app, uds=str(tmp_path / RUNTIME_SOCKET), log_config=None, lifespan="off", loop="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.005)
    yield engine
    server.should_exit = True
    await serving
    for each in engine.servers.values():
        each.close()


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[NativeServer]:
    found = NativeServer(info(tmp_path), tmp_path)
    yield found
    await found.aclose()


def info(store: Path, *, engine: str = "native", boot_id: str = "b1") -> RuntimeInfo:
    return RuntimeInfo(
        engine=engine, boot_id=boot_id, pid=1, model_store=store, envelope=1, max_request_bytes=1, memory_limit_bytes=9,
        versions={"native": "1"}, control_socket=True,
    )  # fmt: skip


async def ask(server: NativeServer, value: bytes = b"x", *, within_s: float = 20.0) -> bytes:
    (answer,) = await server.predict(MODEL, [Row("r", [Part("data", value)])], Deadline.after(within_s))
    return answer.body


async def test_a_version_from_load_to_unload(engine: Engine, server: NativeServer) -> None:
    """It is loaded, called, scaled, described and unloaded through the runtime's socket."""
    assert await server.is_same(timeout_s=5)
    found = await server.load(MODEL)
    assert (found.version, found.workers, found.ready_workers) == ("1.0", 1, 1)
    assert await ask(server) == b"0"
    assert (await server.scale(MODEL, 2)).workers == 2
    assert {bytes(each) for each in await asyncio.gather(*(ask(server) for _ in range(8)))} == {b"0", b"1"}
    assert (await server.scale(MODEL, 1)).workers == 1
    assert {await ask(server) for _ in range(4)} == {b"0"}
    status = await server.status()
    assert (status.server_names, status.base_bytes) == ({"mv_X"}, 7)
    await server.unload(MODEL)
    assert await server.describe(MODEL) is None


async def test_a_version_that_another_sidecar_loaded_is_found(engine: Engine, server: NativeServer) -> None:
    """A sidecar that was started again calls what the runtime still has."""
    engine.models["mv_X"] = 1
    await engine.start("mv_X", 0)
    assert await ask(server) == b"0"


async def test_a_call_waits_for_a_worker_that_starts_again(engine: Engine, server: NativeServer) -> None:
    """While the worker is away the call waits, until its deadline at the latest."""
    await server.load(MODEL)
    with pytest.raises(Unavailable):
        await ask(server, b"die")
    engine.stop(0)
    with pytest.raises(DeadlineExceeded):
        await ask(server, within_s=0.2)
    waiting = asyncio.ensure_future(ask(server))
    await asyncio.sleep(0.05)
    await engine.start("mv_X", 0)
    assert await waiting == b"0"


async def test_a_lost_worker_is_connected_again(engine: Engine, server: NativeServer) -> None:
    """Of two workers one is lost; calls go to the other, and to both when it is back."""
    await server.load(replace(MODEL, workers=2))
    with pytest.raises(Unavailable):
        await ask(server, b"die")
    async with asyncio.timeout(20):
        seen: set[bytes] = set()
        while seen != {b"0", b"1"}:
            seen |= set(await asyncio.gather(*(ask(server) for _ in range(4))))
            await asyncio.sleep(0.02)


async def test_what_is_not_there_is_told(engine: Engine, server: NativeServer) -> None:
    """A version that is not loaded, and one without workers, are errors of their own."""
    with pytest.raises(NotLoaded):
        await ask(server)
    await server.load(replace(MODEL, workers=0))
    with pytest.raises(Overloaded, match="no worker"):
        await ask(server)
    engine.models.clear()
    with pytest.raises(LoadFailed, match="not loaded any more"):
        await server.scale(MODEL, 1)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (LoadFailed("the handler raised"), LoadFailed),
        (Unavailable("the disk is full"), Unavailable),
        (InvalidInput("no such name"), MarwayError),
    ],
)
async def test_refusals_keep_their_kind(
    engine: Engine, server: NativeServer, refusal: MarwayError, kind: type[MarwayError]
) -> None:
    """What the runtime refuses is the same error here, with the version that it is about."""
    engine.refuses = refusal
    with pytest.raises(kind, match=refusal.message) as raised:
        await server.load(MODEL)
    if kind is not MarwayError:
        assert (raised.value.model, raised.value.version) == ("x", "1.0")


async def test_another_start_and_none_are_down(engine: Engine, server: NativeServer, tmp_path: Path) -> None:
    """A runtime that was started again, one that is not there, and one that was let go of do not answer."""
    other = NativeServer(info(tmp_path, boot_id="b0"), tmp_path)
    with pytest.raises(RuntimeDown, match="started again"):
        await other.is_same(timeout_s=5)
    await other.aclose()
    with pytest.raises(RuntimeDown):
        await other.is_same(timeout_s=5)
    nobody = NativeServer(info(tmp_path), tmp_path / "nowhere")
    with pytest.raises(RuntimeDown):
        await nobody.load(MODEL)
    await nobody.aclose()


async def test_the_backend_finds_a_runtime_of_its_engine(tmp_path: Path) -> None:
    """A runtime is found by `runtime.json`, one with another engine is not, and each trouble has its words."""
    backend = open_backend(load_settings(SidecarSettings, backend="native", runtime_dir=tmp_path))
    assert backend.stamp() is None
    assert backend.connect() is None
    assert "is not there" in backend.trouble(found=False)
    write_runtime_info(tmp_path, info(tmp_path, engine="torchserve"))
    assert backend.connect() is None
    write_runtime_info(tmp_path, info(tmp_path))
    assert backend.stamp() is not None
    found = backend.connect()
    assert found is not None
    assert (found.info.boot_id, found.info.memory_limit_bytes) == ("b1", 9)
    assert "does not answer" in backend.trouble(found=True)
    await found.aclose()
    (tmp_path / "runtime.json").write_text("{")
    assert backend.connect() is None
