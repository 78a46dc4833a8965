"""The client of `runtime.sock`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from marway.errors import RuntimeDown
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorkers, short_path
from marway_sidecar.backends.runtime import RuntimeClient


async def test_a_directory_may_have_a_long_path(tmp_path: Path) -> None:
    """A socket whose path is longer than the kernel takes is reached all the same; without one nothing answers."""
    directory = tmp_path / ("x" * 120)
    gone = RuntimeClient(directory, timeout_s=2)
    with pytest.raises(RuntimeDown, match="does not answer on runtime"):
        await gone.workers()
    await gone.aclose()
    directory.mkdir()
    body = RuntimeWorkers(base_bytes=7).model_dump_json().encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    with short_path(directory / RUNTIME_SOCKET) as path:
        server = await asyncio.start_unix_server(answer, path)
    client = RuntimeClient(directory, timeout_s=2)
    assert (await client.workers()).base_bytes == 7
    await client.aclose()
    server.close()
    await server.wait_closed()
