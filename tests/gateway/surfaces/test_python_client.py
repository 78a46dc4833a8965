"""`marway.client` before a real gateway: what its pods do is what its callers see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from aiohttp import web

from gateway.fakes import FakePod, answer, broken_model, fail, hang, running
from gateway.surfaces.test_streaming import sending
from marway import errors
from marway.client import AsyncClient, Client, Event, ModelRefused
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from support.ports import Port
from support.proxy import NGINX, proxied
from support.registry import publish

MakePod = Callable[..., Coroutine[None, None, FakePod]]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def test_predictions_and_what_is_known_of_them(registry: Registry, make_pod: MakePod) -> None:
    """Both clients get what the model answered, in the kind it is, with the ids by which feedback and logs name it."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:

        def blocking() -> None:
            with Client(gateway.addresses.gateway) as client:
                assert client.predict("intent", {"text": "hi"}) == {"text": "hi"}
                assert client.batch("intent", ["a", "b", "c"], concurrency=2) == ["a", "b", "c"]
                assert list(client.stream("intent", "hi")) == ["hi"]
                assert [each.name for each in client.models()] == ["intent"]

        await asyncio.to_thread(blocking)
        async with AsyncClient(gateway.addresses.gateway) as client:
            assert await client.predict("intent", b"\x89", version="1.0") == b"\x89"
            made = await client.predict_full("intent/PROD", "hi", request_id="mine", timeout_s=5)
            assert (made.value, made.request_id, made.model, made.version) == ("hi", "mine", "intent", "1.0")
            assert made.timing["total"] > 0
            assert await client.feedback(made.prediction_id, truth="hello") == 1
            assert (await client.model("intent")).labels == {"PROD": "1.0"}
            found = await client.version("intent", "PROD")
            assert (found.version, found.labels, found.backend) == ("1.0", ["PROD"], "torchserve")
            with pytest.raises(errors.ModelNotFound, match="did you mean model 'intent'"):
                await client.predict("intnt", "hi")
    sent = pod.requests[-1].headers
    assert sent["x-request-id"] == "mine"
    assert int(sent["x-request-timeout-ms"]) <= 5000


async def own_words(pod: FakePod, request: web.Request) -> web.StreamResponse:
    return web.json_response({"why": "no text"}, status=422, headers={OUTCOME: Outcome.ANSWERED})


@pytest.mark.extended  # core/client/test_clients.py has each failure without a gateway
async def test_what_goes_wrong(registry: Registry, make_pod: MakePod) -> None:
    """Failures of model, pods and time are errors of one tree, each with its ids."""
    pod = await make_pod(behave=broken_model)
    async with (
        running(pod, registry=registry) as gateway,
        AsyncClient(gateway.addresses.gateway, retries=0) as client,
    ):
        with pytest.raises(errors.ModelError, match="KeyError: 'text'") as caught:
            await client.predict("intent", "hi")
        assert (caught.value.status, caught.value.model, caught.value.version) == (422, "intent", "1.0")
        assert caught.value.prediction_id is not None
        pod.behave = own_words
        with pytest.raises(ModelRefused) as refused:
            await client.predict("intent", "hi")
        assert refused.value.answer.value == {"why": "no text"}
        pod.behave = hang
        with pytest.raises(errors.DeadlineExceeded) as late:
            await client.predict("intent", "hi", timeout_s=0.1)
        assert late.value.prediction_id is not None  # the gateway's own word, which came before we gave up
        pod.behave = fail(errors.Draining("stopping", retry_after_s=60), Outcome.NOT_ACCEPTED)
        with pytest.raises(errors.Unavailable) as away:
            await client.predict("intent", "hi", timeout_s=2)
        assert away.value.retry_after_s is not None


@pytest.mark.extended  # core/client/test_clients.py has it without a gateway
async def test_a_full_pod_is_asked_again(registry: Registry, make_pod: MakePod) -> None:
    """What the gateway refuses for want of room is asked again when it said, and answered."""
    full = errors.Overloaded("64 requests wait", retry_after_s=1)
    pod = await make_pod(behave=fail(full, Outcome.NOT_ACCEPTED))

    async def have_room() -> None:
        while not pod.requests:
            await asyncio.sleep(0.01)
        pod.behave = answer

    async with running(pod, registry=registry) as gateway, AsyncClient(gateway.addresses.gateway) as client:
        freed = asyncio.create_task(have_room())
        made = await client.predict_full("intent", "hi", timeout_s=60)
        await freed
    assert made.value == "hi"


@pytest.mark.extended  # core/client/test_pieces.py, and the first test here
async def test_streams(registry: Registry, make_pod: MakePod) -> None:
    """Pieces come as the handler sent them, as text, bytes or events; one that breaks off is an error there."""
    pod = await make_pod(behave=sending(b"one ", "zwö".encode(), b"\n"))
    async with running(pod, registry=registry) as gateway:
        url = gateway.addresses.gateway

        def blocking() -> list[str]:
            with Client(url) as client:
                return list(client.stream("intent", "hi"))

        assert await asyncio.to_thread(blocking) == ["one ", "zwö", "\n"]
        async with AsyncClient(url) as client:
            async with client.stream_bytes("intent", "hi") as stream:
                assert stream.prediction_id is not None
                assert b"".join([piece async for piece in stream]) == "one zwö\n".encode()
            pod.behave = sending(b"event: tick\ndata: 1\n\n", b"data: 2\n\n", kind="text/event-stream")
            events = [event async for event in client.stream_events("intent", "hi")]
            assert events == [Event("1", "tick"), Event("2")]
            pod.behave = sending(b"one ", then="break")
            got: list[object] = []
            for ask in (client.stream, client.stream_bytes):
                with pytest.raises(errors.Unavailable) as caught:
                    got += [piece async for piece in ask("intent", "hi")]
                assert caught.value.prediction_id is not None
            with pytest.raises(errors.ModelNotFound):
                await anext(client.stream("nothing", "hi"))


@pytest.mark.extended  # test_streaming.py has the gateway's part
async def test_a_stream_that_is_left_ends_at_the_pod(registry: Registry, make_pod: MakePod) -> None:
    """Who has enough of a stream leaves it, and the work in the pod ends."""
    pod = await make_pod(behave=sending(b"one ", then="hang"))
    async with running(pod, registry=registry) as gateway, AsyncClient(gateway.addresses.gateway) as client:
        async with client.stream("intent", "hi") as stream:
            assert await anext(stream) == "one "
        async with asyncio.timeout(30):
            while not pod.cancelled:
                await asyncio.sleep(0.01)


@pytest.mark.extended  # core/client/test_clients.py has the request that is made
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_tokens_and_a_prefix(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """The key goes along, also through a proxy that puts a prefix before the paths; without it the error says why."""
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token\n")
    tokens.chmod(0o600)
    async with running(await make_pod(), registry=registry, predict_tokens_file=tokens) as gateway:
        async with AsyncClient(gateway.addresses.gateway) as client:
            with pytest.raises(errors.Unauthenticated, match="none was sent"):
                await client.predict("intent", "hi")
        port = Port("gateway", gateway.addresses.gateway, "/predict/intent")
        async with proxied(port, tmp_path, prefix="/ml/") as proxy:
            async with AsyncClient(f"{proxy.url}/ml/", "a-token") as client:
                assert await client.predict("intent", "hi") == "hi"
                assert len(await client.models()) == 1
            async with AsyncClient(f"{proxy.url}/ml", "another") as client:
                with pytest.raises(errors.Unauthenticated, match="not known"):
                    await client.predict("intent", "hi")
