"""A sidecar on a free port in this process, beside a model server that does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample, encode_examples
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, RuntimeDown
from marway.process.stop_request import StopRequest
from marway.records import VersionRecord
from marway.refs import new_ulid
from marway.registry import Registry
from marway.settings import load_settings
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import Description, NotLoaded, ServedModel, ServerInfo, ServerStatus, WorkerStatus
from marway_sidecar.serve import serve
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.sidecar import Sidecar
from support.registry import publisher

__all__ = ["FakeServer", "Pod", "publish_examples", "serving"]

Predict = Callable[[ServedModel, Row], Awaitable[Answer]]
Stream = Callable[[ServedModel, Row], AsyncIterator[Answer]]


async def echo(model: ServedModel, row: Row) -> Answer:
    """Give back what came."""
    return Answer(200, row.parts[0].value, "bytes", row.parts[0].content_type)


async def in_words(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
    """Give back what came, word by word."""
    for word in row.parts[0].value.split():
        yield Answer(200, word + b" ", "text", "text/event-stream")


@dataclass
class FakeServer:
    """A model server in memory: real ones cannot be held, or broken, at a moment of choice.

    It keeps the contract of backends (`tests/sidecar/backends/test_fake_server.py`).

    Attributes:
        predict_with, stream_with: Make the answers.
        may_load: Loads wait until it is set.
        rows: Every row that it was given.
        loaded: What it has.
        workers: How many workers each of these has, by name.
        broken: Names of models that cannot be loaded.
        closed_streams: Streams that were ended, by the server's side of them.
        down: Whether it answers nothing any more.
    """

    predict_with: Predict = echo
    stream_with: Stream = in_words
    may_load: asyncio.Event = field(default_factory=asyncio.Event)
    rows: list[Row] = field(default_factory=list)
    loaded: dict[str, ServedModel] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    closed_streams: int = 0
    down: bool = False
    batches: bool = True
    serves: frozenset[str] = frozenset({"torchserve"})
    info: ServerInfo = field(default_factory=lambda: ServerInfo(new_ulid(), {"torchserve": "fake"}))

    def __post_init__(self) -> None:
        self.may_load.set()

    async def is_same(self, *, timeout_s: float) -> bool:
        self._check_up()
        return True

    async def load(self, model: ServedModel) -> Description:
        self._check_up()
        await self.may_load.wait()
        if model.name in self.broken:
            raise LoadFailed(f"{model.name} is broken", model=model.name, version=model.version)
        self.loaded[model.server_name] = model
        workers = self.workers.setdefault(model.server_name, model.workers)
        return Description(model.version, workers, workers)

    async def unload(self, model: ServedModel) -> None:
        self._check_up()
        self.loaded.pop(model.server_name, None)
        self.workers.pop(model.server_name, None)

    async def scale(self, model: ServedModel, workers: int) -> Description:
        self._check_up()
        self.workers[model.server_name] = workers
        return Description(model.version, workers, workers)

    async def describe(self, model: ServedModel) -> Description | None:
        self._check_up()
        workers = self.workers.get(model.server_name)
        return Description(model.version, workers, workers) if workers is not None else None

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        self._check_loaded(model)
        self.rows += rows
        try:
            async with asyncio.timeout(deadline.left_s()):
                return [await self._answer(model, row) for row in rows]
        except TimeoutError as exc:
            raise DeadlineExceeded("the fake server was too slow") from exc

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncIterator[Answer]:
        self._check_loaded(model)
        self.rows.append(row)
        try:
            async for piece in self.stream_with(model, row):
                yield piece
        finally:
            self.closed_streams += 1

    async def status(self) -> ServerStatus:
        self._check_up()
        names = [name for name, count in self.workers.items() for _ in range(count)]
        workers = tuple(WorkerStatus(1000 + at, name, "forked", "", 1) for at, name in enumerate(names))
        return ServerStatus(frozenset(self.loaded), workers, 0)

    async def aclose(self) -> None:
        return

    async def _answer(self, model: ServedModel, row: Row) -> Answer:
        if not model.streaming:
            return await self.predict_with(model, row)
        body = b"".join([piece.body async for piece in self.stream_with(model, row)])
        return Answer(200, body, "text")

    def _check_loaded(self, model: ServedModel) -> None:
        self._check_up()
        if model.server_name not in self.loaded:
            raise NotLoaded("forgotten")

    def _check_up(self) -> None:
        if self.down:
            raise RuntimeDown("the fake server is down")


@dataclass
class Pod:
    """A sidecar that serves, with a client."""

    sidecar: Sidecar
    server: FakeServer
    url: str
    stop: StopRequest
    task: asyncio.Task[None]
    client: httpx.AsyncClient

    async def predict(self, path: str, body: bytes = b"hello", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(f"/predict/{path}", content=body, headers=sent)

    async def metric(self, line: str) -> float:
        """Return the value of the metric whose name and labels are ``line``; 0 when there is none."""
        text = (await self.client.get("/metrics")).text
        values = [each.rpartition(" ")[2] for each in text.splitlines() if each.rpartition(" ")[0] == line]
        return float(values[0]) if values else 0.0


@contextlib.asynccontextmanager
async def serving(
    registry: Registry, scratch: Path, *, server: FakeServer | None = None, **flags: object
) -> AsyncIterator[Pod]:
    """Serve a sidecar on a free port until the context ends."""
    given: dict[str, object] = {
        "registry": registry.url,
        "runtime_dir": scratch / "run",
        "archive_store": scratch / "store",
        "name": "pod-0",
        "port": 0,
        "lame_duck_s": 0.0,
        "drain_timeout_s": 5.0,
        **flags,
    }
    (scratch / "run").mkdir(exist_ok=True)
    sidecar = Sidecar(load_settings(SidecarSettings, **given))
    server = server or FakeServer()
    stop = StopRequest()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(sidecar, stop=stop, on_ready=ready.set_result))
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await task
    sidecar.attach(server)
    async with httpx.AsyncClient(base_url=ready.result(), timeout=20, trust_env=False) as client:
        try:
            yield Pod(sidecar, server, ready.result(), stop, task, client)
        finally:
            await client.aclose()
            stop.set()
            await asyncio.wait_for(task, 30)


def publish_examples(
    registry: Registry,
    scratch: Path,
    name: str,
    answers: Sequence[tuple[ExampleInput, GoldenAnswer]],
    **facts: object,
) -> VersionRecord:
    """Publish version 1.0 with golden examples, and label it PROD."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": name}}))
        for file, data in encode_examples([example for example, _ in answers]).items():
            archive.writestr(file, data)
    publish = publisher(registry, scratch)
    bare = publish(f"{name}-bare", data=packed.getvalue())  # gives the digest that the golden document names
    examples = tuple(
        GoldenExample(input_sha256=example.sha256, content_type=example.content_type, answer=answer)
        for example, answer in answers
    )
    document = GoldenDocument(archive_sha256=bare.archive.sha256, examples=examples)
    record = publish(name, data=packed.getvalue(), golden=document.encode(), **facts)
    registry.release(name, "1.0", label="PROD", by="test")
    return record
