"""Versions that stream: pieces as they come, broken streams, clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import NotLoaded, ServedModel
from support.pod import FakeServer, serving
from support.registry import publish, until

STREAMS = ServingSettings(streaming=True)


async def test_pieces_come_as_the_handler_sends_them(registry: Registry, tmp_path: Path) -> None:
    """Each piece reaches the client before the next one is made; the first one's headers stand for all."""
    go = asyncio.Event()

    async def held(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
        yield Answer(206, b"data: one\n\n", "text", "text/event-stream", {"X-Own": "first"})
        await go.wait()
        yield Answer(500, b"data: two\n\n", "text", "text/plain")

    publish(registry, tmp_path, "words", "1.0", serving=STREAMS)
    async with serving(registry, tmp_path, server=FakeServer(stream_with=held)) as pod:
        async with pod.client.stream("POST", "/predict/words", content=b"x") as response:
            pieces = response.aiter_bytes()
            assert await anext(pieces) == b"data: one\n\n"
            assert pod.sidecar.draining.requests_in_flight == 1
            (status,) = pod.sidecar.pool.statuses()
            assert status.requests_in_flight == 1  # the lease is held to the end
            go.set()
            assert [piece async for piece in pieces] == [b"data: two\n\n"]
        assert response.status_code == 206
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-marway-outcome"] == "answered"
        assert response.headers["x-own"] == "first"
        assert response.headers["x-model-version"] == "1.0"
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_in_flight == 0)


async def test_one_request_can_ask_for_pieces(registry: Registry, tmp_path: Path) -> None:
    """A gateway asks for one answer in pieces of a version whose other answers are whole."""
    go = asyncio.Event()

    async def held(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
        yield Answer(200, b"one ", "text")
        await go.wait()
        yield Answer(200, b"two", "text")

    publish(registry, tmp_path, "words", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(stream_with=held)) as pod:
        asked = {"x-marway-stream": "1"}
        async with pod.client.stream("POST", "/predict/words", content=b"x", headers=asked) as response:
            pieces = response.aiter_bytes()
            assert await anext(pieces) == b"one "
            go.set()
            assert [piece async for piece in pieces] == [b"two"]
        whole = await pod.predict("words", b"x")
    assert "content-length" in whole.headers
    assert not whole.content.startswith(b"one")


@pytest.mark.parametrize("how", ["error piece", "exception", "deadline"])
async def test_a_stream_that_breaks_ends_uncleanly(registry: Registry, tmp_path: Path, how: str) -> None:
    """What fails after the first piece cuts the body off, so that the client sees that it is half; others go on."""

    async def breaks(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
        yield Answer(200, b"one ", "text")
        if row.parts[0].value == b"fine":
            return
        if how == "exception":
            raise ZeroDivisionError("unexpected")
        if how == "deadline":
            await asyncio.Event().wait()
        yield Answer(500, b"KeyError", "error")

    publish(registry, tmp_path, "words", "1.0", serving=STREAMS)
    async with serving(registry, tmp_path, server=FakeServer(stream_with=breaks)) as pod:
        got: list[bytes] = []
        await pod.predict("words", b"fine")  # loaded: a short deadline would be refused while it loads

        async def read() -> None:
            headers = {"x-request-timeout-ms": "300"}
            async with pod.client.stream("POST", "/predict/words", content=b"x", headers=headers) as response:
                async for piece in response.aiter_bytes():
                    got.append(piece)  # noqa: PERF401 - what came before it broke counts

        with pytest.raises(httpx.RemoteProtocolError):
            await read()
        assert got == [b"one "]
        assert (await pod.predict("words", b"fine")).content == b"one "
        if how != "deadline":  # TorchServe goes on with what it began, and so its slot stays taken
            await until(lambda: pod.server.closed_streams == 3)


@pytest.mark.parametrize(
    ("first", "status", "outcome"),
    [(Answer(422, b"KeyError", "error"), 422, "model_error"), (None, 500, "model_error")],
    ids=["error", "nothing"],
)
async def test_a_stream_that_never_began_is_a_plain_problem(
    registry: Registry, tmp_path: Path, first: Answer | None, status: int, outcome: str
) -> None:
    """A failure before the first piece, and a handler that sends none, are answered with a problem."""

    async def fails(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
        if first is not None:
            yield first

    publish(registry, tmp_path, "words", "1.0", serving=STREAMS)
    async with serving(registry, tmp_path, server=FakeServer(stream_with=fails)) as pod:
        answer = await pod.predict("words")
        assert (answer.status_code, answer.headers["x-marway-outcome"]) == (status, outcome)
        assert answer.json()["code"] == "model_error"


async def test_a_version_that_the_server_lost_is_loaded_again(registry: Registry, tmp_path: Path) -> None:
    """A stream that could not begin because the server lost the version begins after a new load."""
    lost = [True]

    async def forgets(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
        if lost:
            lost.clear()
            raise NotLoaded("forgotten")
        yield Answer(200, b"again", "text")

    publish(registry, tmp_path, "words", "1.0", serving=STREAMS)
    async with serving(registry, tmp_path, server=FakeServer(stream_with=forgets)) as pod:
        assert (await pod.predict("words")).content == b"again"


async def test_a_client_that_leaves_holds_its_slot(registry: Registry, tmp_path: Path) -> None:
    """When the client goes away its request is over, but the slot is free only when the handler has ended."""
    over = asyncio.Event()

    async def endless(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
        yield Answer(200, b"one", "text")
        await over.wait()

    publish(registry, tmp_path, "words", "1.0", serving=STREAMS)
    async with serving(registry, tmp_path, server=FakeServer(stream_with=endless)) as pod:
        async with pod.client.stream("POST", "/predict/words", content=b"x") as response:
            assert await anext(response.aiter_bytes()) == b"one"
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        assert pod.sidecar.pool.statuses()[0].requests_in_flight == 1
        over.set()
        await until(lambda: pod.sidecar.pool.statuses()[0].requests_in_flight == 0)
        await until(lambda: pod.server.closed_streams == 1)
