"""`Prefer: respond-async` through gateways: an answer as it would have been, fetched from any of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from gateway.fakes import FakePod, answer, broken_model, hang, running
from marway.registry import Registry
from support.registry import publish as publish_into

MakePod = Callable[..., Awaitable[FakePod]]
LATER = {"prefer": "respond-async", "content-type": "text/plain", "x-request-id": "mine"}
# These start gateways; test_later.py has taking in, leases, cancelling and giving up without.
pytestmark = pytest.mark.extended


@pytest.fixture
def released(registry: Registry, tmp_path: Path) -> Registry:
    """intent 1.0, which PROD is at."""
    publish_into(registry, tmp_path, "intent", "1.0")
    registry.release("intent", "1.0", by="ci")
    return registry


async def fetched(client: httpx.AsyncClient, location: str) -> httpx.Response:
    async with asyncio.timeout(30):
        while (found := await client.get(location)).status_code == 202:
            assert found.headers["retry-after"] == "1"
            await asyncio.sleep(0.02)
    return found


async def test_the_answer_is_as_at_once(released: Registry, make_pod: MakePod) -> None:
    """Status, headers and body are those of an answer at once, the model's refusals too; others see nothing of it."""
    pod = await make_pod("a", behave=answer)
    async with running(pod, registry=released) as gateway:
        now = await gateway.client.post("/predict/intent", content=b"hi", headers=LATER | {"prefer": "wait=5"})
        accepted = await gateway.client.post("/predict/intent", content=b"hi", headers=LATER)
        assert accepted.status_code == 202
        assert accepted.headers["preference-applied"] == "respond-async"
        location = accepted.headers["location"]
        assert location == f"/predictions/async/{accepted.json()['id']}"
        found = await fetched(gateway.client, location)
        assert (found.status_code, found.content) == (200, b"hi")
        different = {"date", "server-timing", "x-prediction-id"}
        assert {k: v for k, v in found.headers.items() if k not in different} == {
            k: v for k, v in now.headers.items() if k not in different
        }
        assert len(found.headers.get_list("x-request-id")) == 1
        assert found.headers["x-prediction-id"] != now.headers["x-prediction-id"]
        assert (await gateway.client.head(location)).headers["x-model-version"] == "1.0"
        assert "prefer" not in pod.requests[-1].headers
        pod.behave = broken_model
        accepted = await gateway.client.post("/predict/intent/PROD", content=b"hi", headers=LATER)
        failed = await fetched(gateway.client, accepted.headers["location"])
        assert (failed.status_code, failed.json()["code"]) == (422, "model_error")
        for path in ("/predict/none", "/predict/intent/2.0"):
            assert (await gateway.client.post(path, content=b"hi", headers=LATER)).status_code == 404
        assert (await gateway.client.delete(location)).status_code == 204
        for path in (location, "/predictions/async/none"):
            gone = await gateway.client.get(path)
            assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
        metrics = (await gateway.client.get("/metrics")).text
        assert 'marway_gateway_async_requests_total{outcome="answered"} 2.0' in metrics


async def test_cancelled_and_taken_up(released: Registry, make_pod: MakePod) -> None:
    """Cancelling ends the request in the pod; what a gateway that stops has not answered another does."""
    pod = await make_pod("a", behave=hang)
    async with running(pod, registry=released, async_lease_s=1) as other:
        async with running(pod, registry=released, async_lease_s=1, drain_timeout_s=1) as first:
            ends = await first.client.post("/predict/intent", content=b"ends", headers=LATER)
            await asyncio.wait_for(_until(lambda: len(pod.requests) == 1), 30)
            assert (await other.client.get(ends.headers["location"])).status_code == 202
            assert (await other.client.delete(ends.headers["location"])).status_code == 204
            await asyncio.wait_for(_until(lambda: pod.cancelled == 1), 30)
            stays = await first.client.post("/predict/intent", content=b"stays", headers=LATER)
            await asyncio.wait_for(_until(lambda: len(pod.requests) == 2), 30)
        pod.behave = answer
        assert (await fetched(other.client, stays.headers["location"])).content == b"stays"


async def test_tokens_and_limits(released: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Answers want a token as predictions do; too many are refused; turned off, the header is passed over."""
    tokens = tmp_path / "tokens"
    tokens.write_text("ana: secret\n")
    pod = await make_pod("a", behave=hang)
    mine = {"authorization": "Bearer secret"}
    async with running(pod, registry=released, async_requests=1, predict_tokens_file=tokens) as gateway:
        accepted = await gateway.client.post("/predict/intent", content=b"hi", headers=LATER | mine)
        assert accepted.status_code == 202
        assert (await gateway.client.get(accepted.headers["location"])).status_code == 401
        refused = await gateway.client.post("/predict/intent", content=b"hi", headers=LATER | mine)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        await asyncio.wait_for(_until(lambda: len(pod.requests) == 1), 30)
        assert (await gateway.client.delete(accepted.headers["location"], headers=mine)).status_code == 204
        await asyncio.wait_for(_until(lambda: pod.cancelled == 1), 30)
        assert {"authorization", "cookie"} & pod.requests[-1].headers.keys() == set()
    pod.behave = answer
    async with running(pod, registry=released, async_requests=0) as gateway:
        assert (await gateway.client.post("/predict/intent", content=b"hi", headers=LATER)).status_code == 200


async def test_streams_are_kept_whole(released: Registry, make_pod: MakePod) -> None:
    """An answer that comes in pieces is kept whole."""

    async def pieces(pod: FakePod, request: web.Request) -> web.StreamResponse:
        sent = web.StreamResponse(headers={"content-type": "text/plain", "x-marway-outcome": "answered"})
        await sent.prepare(request)
        for piece in (b"one ", b"two"):
            await sent.write(piece)
        await sent.write_eof()
        return sent

    pod = await make_pod("a", behave=pieces)
    async with running(pod, registry=released) as gateway:
        accepted = await gateway.client.post("/predict/intent", content=b"hi", headers=LATER)
        found = await fetched(gateway.client, accepted.headers["location"])
        assert (found.status_code, found.content) == (200, b"one two")


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.02)
