"""Large bodies of known length, which pass the gateway's parser by: unchanged, and no byte of the next request."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, busy, running
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_http.channel import LARGE_BODY_BYTES
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def digest(pod: FakePod, request: web.Request) -> web.Response:
    """Answer with what came: its length and its digest."""
    return web.Response(body=said_of(pod.requests[-1].body), headers={OUTCOME: Outcome.ANSWERED})


def said_of(body: bytes) -> bytes:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()


def body_of(size: int) -> bytes:
    return bytes(number % 251 for number in range(size % 100_000)) + b"y" * (size - size % 100_000)


def head_of(size: int, *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return f"POST /predict/intent HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n{more}\r\n".encode()


async def connected(gateway: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(gateway.addresses.gateway)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


@pytest.mark.parametrize("size", [LARGE_BODY_BYTES, LARGE_BODY_BYTES + 1, MIB, MIB + 1, 5 * MIB + 7])
@pytest.mark.parametrize("first", [0, 1, LARGE_BODY_BYTES])
async def test_requests_one_after_another(registry: Registry, make_pod: MakePod, size: int, first: int) -> None:
    """However a body is cut, and whatever comes at once behind it, each request has its own bytes and no others."""
    pod = await make_pod(behave=digest)
    async with running(pod, registry=registry) as gateway:
        reader, writer = await connected(gateway)
        for body in (body_of(size), body_of(size)[::-1]):
            writer.write(head_of(size) + body[:first])
            await writer.drain()
            writer.write(body[first : size // 2])
            await writer.drain()
            writer.write(body[max(first, size // 2) :] + head_of(5) + b"small")  # pipelined
            assert await answer_of(reader) == (200, said_of(body))
            assert await answer_of(reader) == (200, said_of(b"small"))
        writer.close()
    assert len(pod.requests) == 4


async def test_a_client_that_is_asked_to_go_on(registry: Registry, make_pod: MakePod) -> None:
    """A client that waits with its body is told once to send it."""
    pod = await make_pod(behave=digest)
    async with running(pod, registry=registry) as gateway:
        reader, writer = await connected(gateway)
        writer.write(head_of(2 * MIB, "expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body_of(2 * MIB))
        assert await answer_of(reader) == (200, said_of(body_of(2 * MIB)))
        writer.close()


async def test_a_body_that_was_answered_early(registry: Registry, make_pod: MakePod) -> None:
    """What is left of a body whose answer came first is passed over, and the next request is answered."""
    pod = await make_pod(behave=digest, early=busy)
    async with running(pod, registry=registry) as gateway:
        reader, writer = await connected(gateway)
        body = body_of(3 * MIB)
        writer.write(head_of(len(body)) + body[:MIB])
        assert (await answer_of(reader))[0] in (429, 503)
        writer.write(body[MIB:] + head_of(5) + b"small")
        assert await answer_of(reader) == (200, said_of(b"small"))
        writer.close()


async def test_a_client_that_stalls_or_leaves(registry: Registry, make_pod: MakePod) -> None:
    """A large body that stops coming is refused in time; of one whose client leaves, the pod sees that it is half."""
    pod = await make_pod(behave=digest)
    async with running(pod, registry=registry, body_timeout_s=1.0) as gateway:
        reader, writer = await connected(gateway)
        writer.write(head_of(2 * MIB) + b"x" * MIB)
        assert (await answer_of(reader))[0] == 408
        writer.close()
        _, leaving = await connected(gateway)
        leaving.write(head_of(2 * MIB) + b"x" * MIB)
        await until(lambda: len(pod.requests) == 2)
        leaving.transport.abort()
        assert (await gateway.predict()).status_code == 200
    assert [seen.complete for seen in pod.requests] == [False, False, True]
