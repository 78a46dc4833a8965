import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, busy, fail, hang_up, running
from marway.errors import Overloaded
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.placement import score
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def in_order(make_pod: MakePod, count: int) -> list[FakePod]:
    pods = [await make_pod(f"pod-{number}") for number in range(count)]
    return sorted(pods, key=lambda pod: score(pod.name, "intent", "1.0"), reverse=True)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def raw(gateway: Running, *lines: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send a request's head by hand."""
    parts = urlsplit(gateway.addresses.gateway)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write("\r\n".join((*lines, "host: x", "", "")).encode())
    return reader, writer


async def test_announced_body_too_large(registry: Registry, make_pod: MakePod) -> None:
    """A body whose announced length is over the limit is a 413 before a byte of it was read or a pod was asked."""
    pod = await make_pod()
    async with running(pod, registry=registry, max_body_bytes=1000) as gateway:
        reader, writer = await raw(gateway, "POST /predict/intent HTTP/1.1", "content-length: 1001")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 413 ")
        assert b"connection: close" in head
        assert b"at most 1000 bytes" in await reader.readuntil(b"}")
        writer.close()
        await writer.wait_closed()
        exact = await gateway.predict(body=b"x" * 1000)
    assert exact.status_code == 200
    assert len(pod.requests) == 1


async def test_chunked_body_too_large(registry: Registry, make_pod: MakePod) -> None:
    """A chunked body is cut at the limit with a 413; one that is held in memory touches no pod."""
    pod = await make_pod()
    async with running(pod, registry=registry, max_body_bytes=1000) as gateway:
        refused = await gateway.client.post("/predict/intent", content=pieces(b"x" * 600, b"x" * 600))
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    assert not pod.requests


async def test_streaming_body_too_large(registry: Registry, make_pod: MakePod) -> None:
    """A streaming body that turns out too large is a 413, and the pod never gets it to its end."""
    pod = await make_pod()
    async with running(pod, registry=registry, max_body_bytes=3 * MIB, buffered_body_bytes=MIB) as gateway:
        refused = await gateway.client.post("/predict/intent", content=pieces(*[b"x" * MIB] * 5))
        again = await gateway.predict()
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    assert again.status_code == 200
    assert [seen.complete for seen in pod.requests] == [False, True]


@pytest.mark.parametrize("content", [b"", pieces(), pieces(b"", b"")])
async def test_empty_body(registry: Registry, make_pod: MakePod, content: object) -> None:
    """A request without a body is a 400 that says how to send one."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        refused = await gateway.client.post("/predict/intent", content=content)  # type: ignore[arg-type]
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert "--data-binary" in refused.json()["detail"]
    assert not pod.requests


async def test_multipart_passes_as_it_is(registry: Registry, make_pod: MakePod) -> None:
    """A multipart body reaches the pod byte for byte, with its boundary."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        request = gateway.client.build_request(
            "POST", "/predict/intent", files={"image": ("a.png", b"\x89PNG\r\n", "image/png")}, data={"top": "3"}
        )
        sent = request.read()
        await gateway.client.send(request)
    assert pod.requests[0].body == sent
    assert pod.requests[0].headers["content-type"] == request.headers["content-type"]


async def digest_body(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer with the digest of a body that is read in pieces."""
    digest = hashlib.sha256()
    async for chunk in request.content.iter_any():
        digest.update(chunk)
    return web.Response(text=digest.hexdigest(), headers={OUTCOME: Outcome.ANSWERED})


@pytest.mark.parametrize("announced", [True, False])
async def test_large_body_streams(registry: Registry, make_pod: MakePod, announced: bool) -> None:
    """A large body goes through unchanged while only a small part of it is in memory at any time."""
    pod = await make_pod(behave=digest_body, read_body=False)
    block = bytes(range(256)) * 256
    count = 32 * MIB // len(block)
    async with running(pod, registry=registry) as gateway:
        headers = {"content-length": str(count * len(block))} if announced else {}
        tracemalloc.start()
        answer = await gateway.client.post("/predict/intent", content=pieces(*[block] * count), headers=headers)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert answer.text == hashlib.sha256(block * count).hexdigest()
    assert peak < 10 * MIB
    assert ("content-length" in pod.requests[0].headers) is announced


async def test_buffered_body_is_sent_again(registry: Registry, make_pod: MakePod) -> None:
    """A body of just the buffered size that was lost with its pod is sent to another, whole."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = hang_up
    async with running(*pods, registry=registry, buffered_body_bytes=MIB) as gateway:
        answer = await gateway.predict(body=b"x" * MIB)
    assert answer.content == b"x" * MIB


async def test_large_body_held_in_memory(registry: Registry, make_pod: MakePod) -> None:
    """With a larger buffer, bodies above one MiB are sent again as well."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = hang_up
    async with running(*pods, registry=registry, buffered_body_bytes=4 * MIB) as gateway:
        answer = await gateway.predict(body=b"xy" * MIB)
    assert answer.content == b"xy" * MIB
    assert pods[1].requests[0].headers["content-length"] == str(2 * MIB)


async def test_large_body_not_accepted(registry: Registry, make_pod: MakePod) -> None:
    """A pod that does not accept a large body before its first byte leaves it whole for the next pod."""
    pods = await in_order(make_pod, 2)
    pods[0].early = busy
    async with running(*pods, registry=registry) as gateway:
        answer = await gateway.predict(body=b"x" * (3 * MIB))
    assert answer.content == b"x" * (3 * MIB)
    assert not pods[0].requests[0].complete


async def test_large_body_to_a_dead_pod(registry: Registry, make_pod: MakePod) -> None:
    """A pod that refuses the connection leaves a large body whole for the next pod."""
    pods = await in_order(make_pod, 2)
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: pods[0].polls)
        await pods[0].stop()
        assert len((await gateway.predict(body=b"x" * (3 * MIB))).content) == 3 * MIB


@pytest.mark.parametrize("behave", [hang_up, fail(Overloaded("full", retry_after_s=5), Outcome.NOT_ACCEPTED)])
async def test_large_body_is_not_sent_twice(
    registry: Registry, make_pod: MakePod, behave: Callable[..., object]
) -> None:
    """Once a byte of a large body was sent no other pod is asked, and the caller is told to try again."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = behave  # type: ignore[assignment]
    async with running(*pods, registry=registry) as gateway:
        lost = await gateway.predict(body=b"x" * (3 * MIB))
    assert lost.status_code in (429, 503)
    assert "retry-after" in lost.headers
    assert not pods[1].requests


async def test_client_that_goes_away_while_sending(registry: Registry, make_pod: MakePod) -> None:
    """When the client goes away in the middle of a large body, the pod's request ends and nothing is retried."""
    pods = await in_order(make_pod, 2)
    async with running(*pods, registry=registry) as gateway:
        _, writer = await raw(gateway, "POST /predict/intent HTTP/1.1", f"content-length: {3 * MIB}")
        writer.write(b"x" * MIB)
        await until(lambda: pods[0].requests)
        writer.close()
        await writer.wait_closed()
        line = (
            "marway_gateway_request_duration_seconds_count"
            '{model="intent",outcome="cancelled",surface="native",version="1.0"}'
        )
        while not await gateway.metric(line):
            pass
        assert (await gateway.predict()).status_code == 200
    assert not pods[0].requests[0].complete
    assert not pods[1].requests


async def test_slow_body_meets_the_deadline(registry: Registry, make_pod: MakePod) -> None:
    """A client that does not finish its body in time gets a 504, and no pod is asked."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        reader, writer = await raw(
            gateway, "POST /predict/intent HTTP/1.1", "content-length: 100", "x-request-timeout-ms: 100"
        )
        writer.write(b"x")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 504 ")
        writer.close()
        await writer.wait_closed()
    assert not pod.requests


async def test_answer_streams(registry: Registry, make_pod: MakePod) -> None:
    """A chunked answer's first part arrives before its last part was made."""
    first_arrived = asyncio.Event()

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED, "content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: 1\n\n")
        await first_arrived.wait()
        await answer.write(b"data: 2\n\n")
        return answer

    pod = await make_pod(behave=behave)
    async with (
        running(pod, registry=registry) as gateway,
        gateway.client.stream("POST", "/predict/intent", content=b"x") as answer,
    ):
        parts = answer.aiter_raw()
        assert await anext(parts) == b"data: 1\n\n"
        first_arrived.set()
        assert await anext(parts) == b"data: 2\n\n"
        assert answer.headers["content-type"] == "text/event-stream"


async def test_large_answer_streams(registry: Registry, make_pod: MakePod) -> None:
    """A large answer goes through unchanged, with its length, while only a part of it is in memory."""
    block = bytes(range(256)) * 256
    count = 32 * MIB // len(block)

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED, "content-length": str(count * len(block))})
        await answer.prepare(request)
        for _ in range(count):
            await answer.write(block)
        return answer

    pod = await make_pod(behave=behave)
    digest = hashlib.sha256()
    async with running(pod, registry=registry) as gateway:
        tracemalloc.start()
        async with gateway.client.stream("POST", "/predict/intent", content=b"x") as answer:
            assert answer.headers["content-length"] == str(count * len(block))
            async for part in answer.aiter_raw():
                digest.update(part)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(block * count).digest()
    assert peak < 10 * MIB


async def test_answer_cut_short(registry: Registry, make_pod: MakePod) -> None:
    """When a pod dies in the middle of a streaming answer, the client can tell that the answer is not whole."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED})
        await answer.prepare(request)
        await answer.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return answer

    pod = await make_pod(behave=behave)
    async with running(pod, registry=registry) as gateway:
        with pytest.raises(httpx.RemoteProtocolError):
            await gateway.predict()
        line = (
            "marway_gateway_request_duration_seconds_count"
            '{model="intent",outcome="unavailable",surface="native",version="1.0"}'
        )
        while not await gateway.metric(line):
            pass


async def test_small_answer_cut_short(registry: Registry, make_pod: MakePod) -> None:
    """When a pod dies in the middle of a small answer, another pod gives the whole one."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED, "content-length": "10"})
        await answer.prepare(request)
        await answer.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return answer

    pods = await in_order(make_pod, 2)
    pods[0].behave = behave
    async with running(*pods, registry=registry) as gateway:
        assert (await gateway.predict()).content == b"hello"
