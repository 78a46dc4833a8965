"""The memory of a large body is free in the moment in which its request ends, however that does: no cycle keeps it.

The collector looks for cycles late (`marway_sidecar.serve`), so here it does not look at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from marway.deadline import Deadline
from marway.errors import MarwayError, ModelError, RuntimeDown
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_http.http1.reader import BodyPieces
from marway_sidecar.api.bodies import read_body
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.memory.body_budget import HeldBytes
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until

pytestmark = pytest.mark.timeout(60)
MIB = 2**20


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Worker(FakeServer):
    """A model server with one worker that ends a call when it may, and keeps nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.fails_with: type[MarwayError] | None = None
        self.may_end = asyncio.Event()

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        self.calls += 1
        await self.may_end.wait()
        if self.fails_with is not None:
            raise self.fails_with("it ended so")
        return [Answer(200, b"fine", "text") for _ in rows]


class Traced(bytes):
    """A body that is counted as long as it is in memory."""

    alive = 0

    def __new__(cls, body: bytes) -> Self:
        Traced.alive += 1
        return super().__new__(cls, body)

    def __del__(self) -> None:
        Traced.alive -= 1


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> list[BodyPieces]:
    """Have every body traced; return what connections hold of those that are coming."""
    coming: list[BodyPieces] = []

    async def read(*args: Any, **kwargs: Any) -> tuple[bytes, HeldBytes | None]:
        body, memory = await read_body(*args, **kwargs)
        return (Traced(body) if len(body) >= MIB else body), memory

    class Coming(BodyPieces):
        def add(self, data: bytes) -> None:
            if self not in coming:
                coming.append(self)
            super().add(data)

    monkeypatch.setattr("marway_sidecar.api.predict.read_body", read)
    monkeypatch.setattr("marway_http.http1.request.BodyPieces", Coming)
    monkeypatch.setattr(Traced, "alive", 0)
    return coming


@contextlib.asynccontextmanager
async def pod_with(registry: Registry, scratch: Path, server: Worker) -> AsyncIterator[Pod]:
    publish(registry, scratch, "some", "1.0", serving={"max_workers": 1, "max_batch_rows": 1})
    async with serving(registry, scratch, server=server) as pod:
        await pod.client.post("/models/some/PROD/load")
        yield pod


async def begun(pod: Pod, *, sent: int = MIB, timeout_ms: int = 30_000) -> asyncio.StreamWriter:
    address = urlsplit(pod.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST /predict/some HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: {timeout_ms}\r\ncontent-length: {MIB}\r\n\r\n"
    )
    writer.write(head.encode() + b"x" * sent)
    return writer


async def test_a_body_whose_client_leaves_half_way(
    registry: Registry, tmp_path: Path, traced: list[BodyPieces]
) -> None:
    """What came of it goes with its client."""
    server = Worker()
    async with pod_with(registry, tmp_path, server) as pod:
        for _ in range(3):
            writer = await begun(pod, sent=MIB // 2)
            await until(lambda: pod.sidecar.bodies.held_bytes)
            writer.transport.abort()
            await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
            assert pod.sidecar.bodies.held_bytes == 0
            assert [pieces.held for pieces in traced] == [0] * len(traced)
        assert len(traced) == 3


@pytest.mark.parametrize("where", ["in a worker", "in the queue"])
@pytest.mark.parametrize("ending", ["client leaves", "deadline", "server goes", "fails"])
async def test_fault_a_whole_body(registry: Registry, tmp_path: Path, where: str, ending: str) -> None:
    """It is there until its call has ended, or until nobody waits for it any more, and not longer."""
    server = Worker()
    async with pod_with(registry, tmp_path, server) as pod:
        before: asyncio.Task[object] | None = None
        if where == "in the queue":
            before = asyncio.create_task(pod.predict("some", b"small"))
            await until(lambda: server.calls == 1)
        writer = await begun(pod, timeout_ms=500 if ending == "deadline" else 30_000)
        await until(lambda: pod.sidecar.bodies.held_bytes == MIB)
        if where == "in a worker":
            await until(lambda: server.calls == 1)
        await until(lambda: Traced.alive == 1)
        if ending == "client leaves":
            writer.transport.abort()
        elif ending == "server goes":
            server.fails_with = RuntimeDown
            pod.sidecar.pool.attach(None)
        elif ending == "fails":
            server.fails_with = ModelError
        if ending in ("client leaves", "deadline"):
            await until(lambda: pod.sidecar.draining.requests_in_flight == (before is not None))
        server.may_end.set()
        if before is not None:
            await before
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        await until(lambda: pod.sidecar.bodies.held_bytes == 0)
        await until(lambda: Traced.alive == 0)
        writer.close()
