"""Calls over REST, against servers that answer as no server should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from marway.deadline import Deadline
from marway.errors import InvalidRequest, MarwayError, ModelError, RuntimeDown
from marway.wire.envelope import Part, Row
from marway.wire.runtime import RuntimeInfo
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.torchserve import TorchServeAdapter

pytestmark = pytest.mark.timeout(60)
MODEL = ServedModel(
    server_name="m-some",
    name="some",
    version="1.0",
    archive=Path("x.mar"),
    workers=1,
    load_timeout_s=10,
    predict_timeout_s=10,
    protocol="rest",
)


class Server:
    """A TorchServe that another started, as far as REST goes; it gives its answers and closes."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(self.answers.pop(0))
                await writer.drain()
                if not self.answers:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def adapter_of(server: Server, tmp_path: Path) -> AsyncIterator[TorchServeAdapter]:
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    address = f"127.0.0.1:{server.port}"
    rest = f"http://{address}"
    info = RuntimeInfo(
        boot_id="boot",
        pid=1,
        addresses={
            "inference": rest,
            "management": rest,
            "metrics": rest,
            "grpc_inference": address,
            "grpc_management": address,
        },
        model_store=tmp_path,
        envelope=0,
        max_request_bytes=1_000_000,
        memory_limit_bytes=0,
        versions={},
    )
    adapter = TorchServeAdapter(info)
    try:
        yield adapter
    finally:
        await adapter.aclose()
        listening.close()
        await listening.wait_closed()


def answer(*lines: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", b"content-length: 2", *lines, b"", b"hi"))


FAULTS: dict[str, tuple[bytes, type[MarwayError]]] = {
    "large headers": (answer(*(b"x-%d: %b" % (at, b"v" * 1000) for at in range(300))), ModelError),
    "a header that is none": (answer(b"no header"), ModelError),
    "nothing": (b"", RuntimeDown),
    "half": (answer()[:-1], RuntimeDown),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_an_answer_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """Headers that a handler should not have set are one request's fault; a connection that ends is the server's."""
    said, expected = FAULTS[name]
    server = Server()
    async with adapter_of(server, tmp_path) as adapter:
        server.answers = [said]
        with pytest.raises(expected):
            await adapter.predict(MODEL, [Row("asked", [Part("data", b"x")])], Deadline.after(30))


async def test_a_request_that_cannot_be_sent(tmp_path: Path) -> None:
    """A row with a header that HTTP cannot carry is refused; the next one is answered."""
    server = Server()
    server.answers = [answer()]
    async with adapter_of(server, tmp_path) as adapter:
        with pytest.raises(InvalidRequest):
            await adapter.predict(MODEL, [Row("asked", [Part("data", b"x")], {"x-own": "a\r\nb"})], Deadline.after(30))
        (said,) = await adapter.predict(MODEL, [Row("asked", [Part("data", b"x")])], Deadline.after(30))
        assert said.body == b"hi"
