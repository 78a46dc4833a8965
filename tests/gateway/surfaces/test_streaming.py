"""Answers in pieces: each reaches the caller before the next is made, as a chunk or as a server-sent event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from gateway.fakes import Behaviour, FakePod, running, too_late
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.http.server_sent_events import EventStream, wants_events
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
EVENTS = {"accept": "text/event-stream"}
SURFACES = ["/predict/intent", "/predictions/intent"]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


def sending(*pieces: bytes, then: str = "end", go: asyncio.Event | None = None, kind: str = "text/plain") -> Behaviour:
    """Answer in pieces: the first at once, the others when told to go; then end, break off, or say no more."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED, "content-type": kind})
        await answer.prepare(request)
        for number, piece in enumerate(pieces):
            if number == 1 and go is not None:
                await go.wait()
            await answer.write(piece)
        if then == "hang":
            await asyncio.Event().wait()
        if then == "break":
            assert request.transport is not None
            request.transport.close()
        return answer

    return behave


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize(
    ("headers", "first", "rest"),
    [
        ({}, b"one ", b"two"),
        (EVENTS, b"data: one \n\n", b"data: two\n\nevent: end\ndata: \n\n"),
    ],
)
async def test_a_piece_comes_before_the_next_is_made(
    registry: Registry, make_pod: MakePod, path: str, headers: dict[str, str], first: bytes, rest: bytes
) -> None:
    """The caller has the first piece in hand while the model has not begun with the second."""
    go = asyncio.Event()
    pod = await make_pod(behave=sending(b"one ", b"two", go=go))
    async with (
        running(pod, registry=registry) as gateway,
        gateway.client.stream("POST", path, content=b"x", headers=headers) as answer,
    ):
        chunks = answer.aiter_raw()
        assert await anext(chunks) == first
        assert not go.is_set()
        go.set()
        assert b"".join([chunk async for chunk in chunks]) == rest
    assert answer.status_code == 200
    assert answer.headers["content-type"] == ("text/event-stream" if headers else "text/plain")
    assert answer.headers["x-model-version"] == "1.0"
    assert "pod;dur=" in answer.headers["server-timing"]
    assert len(pod.requests) == 1


async def test_events_of_the_handlers_own_pass_unchanged(registry: Registry, make_pod: MakePod) -> None:
    """A handler that writes events itself is not wrapped a second time."""
    pod = await make_pod(behave=sending(b"data: 1\n\n", b"data: 2\n\n", kind="text/event-stream; charset=utf-8"))
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.client.post("/predict/intent", content=b"x", headers=EVENTS)
    assert answer.content == b"data: 1\n\ndata: 2\n\n"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_a_whole_answer_is_no_event_stream(registry: Registry, make_pod: MakePod) -> None:
    """A version that does not stream answers as ever, whatever the caller accepts."""
    async with running(await make_pod(), registry=registry) as gateway:
        answer = await gateway.predict(accept="text/event-stream", content_type="text/plain")
    assert (answer.content, answer.headers["content-type"]) == (b"hello", "text/plain")


@pytest.mark.parametrize("path", SURFACES)
async def test_a_stream_that_breaks_is_cut(registry: Registry, make_pod: MakePod, path: str) -> None:
    """A chunked answer whose pod is lost ends uncleanly, and no other pod is asked for the rest."""
    pods = [await make_pod(name, behave=sending(b"one ", then="break")) for name in "ab"]
    async with running(*pods, registry=registry) as gateway:
        got: list[bytes] = []

        async def read() -> None:
            async with gateway.client.stream("POST", path, content=b"x") as answer:
                async for piece in answer.aiter_raw():
                    got.append(piece)  # noqa: PERF401 - what came before it broke counts

        with pytest.raises(httpx.RemoteProtocolError):
            await read()
    assert got == [b"one "]
    assert sum(len(pod.requests) for pod in pods) == 1


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/predict/intent", {"code": "unavailable", "status": 503}), ("/predictions/intent", {"code": 503})],
)
async def test_events_say_that_the_stream_broke(
    registry: Registry, make_pod: MakePod, path: str, fields: dict[str, object]
) -> None:
    """An event stream whose pod is lost ends with the error, in the form of its surface, and counts as failed."""
    pods = [await make_pod(name, behave=sending(b"one ", then="break")) for name in "ab"]
    async with running(*pods, registry=registry) as gateway:
        answer = await gateway.client.post(path, content=b"x", headers=EVENTS)
        surface = "native" if path == "/predict/intent" else "torchserve"
        counted = await gateway.metric(
            "marway_gateway_request_duration_seconds_count"
            f'{{model="intent",outcome="unavailable",surface="{surface}",version="1.0"}}'
        )
    first, error, rest = answer.text.split("\n\n")
    assert (first, rest) == ("data: one ", "")
    event, _, data = error.partition("\ndata: ")
    assert event == "event: error"
    assert json.loads(data).items() >= fields.items()
    assert "broke off" in data
    assert sum(len(pod.requests) for pod in pods) == 1
    assert counted == 1


async def test_the_deadline_ends_a_stream(registry: Registry, make_pod: MakePod) -> None:
    """A stream that is not at its end by the deadline ends with that error, and the pod's request with it."""
    pod = await make_pod(behave=sending(b"one ", then="hang"))
    async with running(pod, registry=registry) as gateway:
        answer = await too_late(
            lambda timeout_s: gateway.predict(**EVENTS, x_request_timeout_ms=f"{timeout_s * 1000:.0f}"),
            reached=lambda answer: answer.text.startswith("data: one "),
        )
        await until(lambda: pod.cancelled == len(pod.requests))
    assert answer.text.startswith("data: one \n\nevent: error\ndata: {")
    assert '"deadline_exceeded"' in answer.text


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_a_reader_that_stops_is_left_at_the_deadline(
    registry: Registry, make_pod: MakePod, headers: dict[str, str]
) -> None:
    """Who does not read the pieces holds the pod no longer than the deadline."""
    pod = await make_pod(behave=sending(*[b"x" * 1_000_000] * 60, then="hang"))
    async with running(pod, registry=registry) as gateway, AsyncExitStack() as held:

        async def read_one(timeout_s: float) -> httpx.Response:
            sent = {**headers, "x-request-timeout-ms": f"{timeout_s * 1000:.0f}"}
            stream = gateway.client.stream("POST", "/predict/intent", content=b"x", headers=sent)
            answer = await held.enter_async_context(stream)
            if answer.status_code == 200:
                chunks = answer.aiter_raw()
                held.push_async_callback(chunks.aclose)  # held: the connection is closed when it is thrown away
                await anext(chunks)
            return answer

        await too_late(read_one, reached=lambda answer: answer.status_code == 200)
        await until(lambda: pod.cancelled == len(pod.requests))
        line = 'duration_seconds_count{model="intent",outcome="timeout",surface="native",version="1.0"}'
        while not await gateway.metric(f"marway_gateway_request_{line}"):
            pass


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_a_client_that_leaves_ends_the_pods_work(
    registry: Registry, make_pod: MakePod, headers: dict[str, str]
) -> None:
    """When the caller goes away within a stream, the connection to the pod is closed."""
    pod = await make_pod(behave=sending(b"one ", then="hang"))
    async with running(pod, registry=registry) as gateway:
        async with gateway.client.stream("POST", "/predict/intent", content=b"x", headers=headers) as answer:
            await anext(answer.aiter_raw())
        await until(lambda: pod.cancelled == 1)
        line = 'duration_seconds_count{model="intent",outcome="cancelled",surface="native",version="1.0"}'
        while not await gateway.metric(f"marway_gateway_request_{line}"):
            pass


async def test_a_large_piece_is_one_event(registry: Registry, make_pod: MakePod) -> None:
    """A piece larger than any buffer on the way arrives as one event."""
    pieces = [b"a" * 3_000_000, b"b" * 70_000]
    pod = await make_pod(behave=sending(*pieces))
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.client.post("/predict/intent", content=b"x", headers=EVENTS)
    assert answer.content == b"".join(b"data: %b\n\n" % piece for piece in pieces) + b"event: end\ndata: \n\n"


def test_events_keep_text_whole() -> None:
    """Lines of a piece are lines of its event, and a character cut by a piece's end is not lost."""
    events = EventStream()
    assert events.piece(b"a\r\nb\rc\n") == b"data: a\ndata: b\ndata: c\ndata: \n\n"
    assert events.piece("ü\u2028".encode()[:1]) == b""
    assert events.piece("ü\u2028".encode()[1:]) == "data: ü\u2028\n\n".encode()
    assert events.piece(b"\xc3") == b""
    assert events.end() == "data: \ufffd\n\nevent: end\ndata: \n\n".encode()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("*/*", False),
        ("text/*", False),
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream; q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000, */*", False),
    ],
)
def test_who_wants_events(accept: str | None, wanted: bool) -> None:
    """Events are for who names them."""
    assert wants_events(accept) is wanted
