"""What the adapter makes of the runtime's own list of workers, from a real HTTP server on a Unix socket."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from marway.errors import MarwayError, RuntimeDown
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorker, RuntimeWorkers
from marway_sidecar.backends.torchserve.management import RuntimeControl

SAID = RuntimeWorkers(
    workers=(
        RuntimeWorker(pid=11, server_name="mv_A", mode="forked", private_bytes=10 * 2**20),
        RuntimeWorker(pid=12, server_name=None, mode="plain", reason="it has a runtime of its own", private_bytes=5),
    ),
    base_bytes=300 * 2**20,
)


@asynccontextmanager
async def runtime(directory: Path, body: bytes, status: str = "200 OK") -> AsyncIterator[list[str]]:
    """Serve one answer to every request, and give what was asked."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.decode().partition(" HTTP")[0])
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path=directory / RUNTIME_SOCKET)
    async with server:
        yield asked


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mrt-") as made:  # a socket's path must be short
        yield Path(made)


async def test_workers_come_as_the_runtime_says_them(directory: Path) -> None:
    """Every worker comes with its mode, reason and memory, and the memory of the rest."""
    async with runtime(directory, SAID.model_dump_json().encode()) as asked:
        control = RuntimeControl(directory)
        assert await control.workers() == SAID
        assert await control.workers() == SAID
        await control.aclose()
    assert asked == ["GET /workers", "GET /workers"]


async def test_fields_of_a_newer_runtime_are_ignored(directory: Path) -> None:
    """A runtime that says more than we know is understood."""
    document = {**json.loads(SAID.model_dump_json()), "later": 1}
    async with runtime(directory, json.dumps(document).encode()):
        control = RuntimeControl(directory)
        assert await control.workers() == SAID
        await control.aclose()


async def test_no_runtime_is_down_and_nonsense_an_error(directory: Path) -> None:
    """A socket that nobody serves is a runtime that is down; an answer that is none is an error, not an empty list."""
    control = RuntimeControl(directory)
    with pytest.raises(RuntimeDown):
        await control.workers()
    async with runtime(directory, b"{"):
        with pytest.raises(MarwayError, match="cannot be read"):
            await control.workers()
    (directory / RUNTIME_SOCKET).unlink(missing_ok=True)
    async with runtime(directory, b"", status="500 Internal Server Error"):
        with pytest.raises(MarwayError, match="500"):
            await control.workers()
    await control.aclose()
