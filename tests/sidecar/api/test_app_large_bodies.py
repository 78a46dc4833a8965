"""Large bodies of known length, which pass the parser by: whole and unchanged, and no byte of the next request."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_http.channel import LARGE_BODY_BYTES
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until

pytestmark = pytest.mark.timeout(60)
MIB = 2**20


async def digest(model: ServedModel, row: Row) -> Answer:
    """Answer with what came: its length and its digest."""
    body = row.parts[0].value
    assert type(body) is bytes
    return Answer(200, said_of(body), "text")


def said_of(body: bytes) -> bytes:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()


def body_of(size: int) -> bytes:
    return bytes(number % 251 for number in range(size % 100_000)) + b"y" * (size - size % 100_000)


def head_of(size: int, *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return f"POST /predict/some HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n{more}\r\n".encode()


async def connected(pod: Pod) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(pod.url)
    return await asyncio.open_connection(address.hostname, address.port)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


@pytest.mark.parametrize(
    "size", [1, LARGE_BODY_BYTES - 1, LARGE_BODY_BYTES, LARGE_BODY_BYTES + 1, 3 * LARGE_BODY_BYTES, 5 * MIB + 7]
)
@pytest.mark.parametrize("first", [0, 1, LARGE_BODY_BYTES])
async def test_requests_one_after_another(registry: Registry, tmp_path: Path, size: int, first: int) -> None:
    """However a body is cut, and whatever comes at once behind it, each request has its own bytes and no others."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=digest)) as pod:
        reader, writer = await connected(pod)
        bodies = [body_of(size), body_of(size)[::-1], b"small"]
        for body in bodies[:2]:
            writer.write(head_of(size) + body[:first])
            await writer.drain()
            writer.write(body[first : size // 2])
            await writer.drain()
            writer.write(body[max(first, size // 2) :] + head_of(5) + b"small")  # pipelined
            assert await answer_of(reader) == (200, said_of(body))
            assert await answer_of(reader) == (200, said_of(b"small"))
        writer.close()


async def test_a_client_that_is_asked_to_go_on(registry: Registry, tmp_path: Path) -> None:
    """A client that waits with its body is told once to send it."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=digest)) as pod:
        reader, writer = await connected(pod)
        writer.write(head_of(MIB, "expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body_of(MIB))
        assert await answer_of(reader) == (200, said_of(body_of(MIB)))
        writer.close()


async def test_a_refused_body_is_not_kept(registry: Registry, tmp_path: Path) -> None:
    """A body that comes in spite of its refusal is read and dropped for a moment, and reaches no model."""
    publish(registry, tmp_path, "some", "1.0")
    server = FakeServer(predict_with=digest)
    async with serving(registry, tmp_path, server=server, max_body_bytes=MIB) as pod:
        reader, writer = await connected(pod)
        writer.write(head_of(5 * MIB) + b"x" * LARGE_BODY_BYTES)
        assert (await answer_of(reader))[0] == 413
        writer.write(b"x" * (5 * MIB - LARGE_BODY_BYTES) + head_of(5) + b"small")
        assert await reader.read() == b""  # its connection is over
        writer.close()
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        assert not server.rows
        assert pod.sidecar.bodies.held_bytes == 0


async def test_the_body_of_an_unknown_model(registry: Registry, tmp_path: Path) -> None:
    """A body that nobody reads is passed over, and the next request on its connection is answered."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=digest)) as pod:
        reader, writer = await connected(pod)
        writer.write(head_of(MIB).replace(b"/some", b"/none") + b"x")
        assert (await answer_of(reader))[0] == 404
        writer.write(b"x" * (MIB - 1) + head_of(5) + b"small")
        assert await answer_of(reader) == (200, said_of(b"small"))
        writer.close()


async def test_a_body_that_stops_coming(registry: Registry, tmp_path: Path) -> None:
    """A client that stalls in the middle is refused at its deadline; one that leaves is forgotten; no model hears."""
    publish(registry, tmp_path, "some", "1.0")
    server = FakeServer(predict_with=digest)
    async with serving(registry, tmp_path, server=server) as pod:
        reader, writer = await connected(pod)
        writer.write(head_of(MIB, "x-request-timeout-ms: 200") + b"x" * (MIB // 2))
        assert (await answer_of(reader))[0] == 504
        writer.close()
        _, leaving = await connected(pod)
        leaving.write(head_of(MIB) + b"x" * (MIB // 2))
        await until(lambda: MIB // 4 <= pod.sidecar.bodies.held_bytes <= MIB // 2)  # what came, and not what will
        leaving.transport.abort()
        await until(lambda: pod.sidecar.bodies.held_bytes == 0)
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        assert not server.rows
