"""The short way to the predict routes answers as FastAPI's own way does."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.fakes import FakePod
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.settings import load_settings
from marway_gateway.app import create_app
from marway_gateway.gateway import open_gateway
from marway_gateway.settings import GatewaySettings
from marway_http.channel import CHANNEL, HeaderBlock
from support.registry import publish, until

IDS = {"x-request-id": "the-same", "x-request-group-id": "group", "content-type": "text/plain"}
VARYING = {"date", "server-timing", "x-prediction-id"}


class AsgiChannel:
    """The channel of a request that does not come over Marway's own server."""

    body: bytes | None = None
    received = started = False
    reason: Exception | None = None

    def __init__(self, send: Send) -> None:
        self._send = send

    def when_gone(self, gone: object) -> None:
        """Nobody leaves."""

    async def answer(self, status: int, headers: HeaderBlock, body: bytes, *, close: bool = False) -> None:
        lines = [tuple(line.split(b": ", 1)) for line in headers.text.splitlines()]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def with_channel(app: ASGIApp) -> ASGIApp:
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, CHANNEL: AsgiChannel(send)}, receive, send)

    return called


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predict/m", 200),
        ("POST", "/predict/m/1.0", 200),
        ("POST", "/predict/m/PROD", 200),
        ("POST", "/predictions/m", 200),
        ("PUT", "/predictions/m/1.0", 200),
        ("POST", "/explanations/m", 200),
        ("POST", "/predict/nobody", 404),
        ("POST", "/predictions/nobody", 404),
        ("POST", "/predict/in%20valid", 400),
        ("POST", "/predict/m/1.0/more", 404),
        ("POST", "/predict/", 404),
        ("GET", "/predict/m", 405),
    ],
)
async def test_both_ways_answer_alike(tmp_path: Path, method: str, path: str, status: int) -> None:
    """Status, headers and body are the same, whichever way a request takes through the app."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "m")
    pod = FakePod("a")
    await pod.start()
    try:
        settings = load_settings(GatewaySettings, registry="file:///nowhere", pods=[f"a={pod.url}"], access_log=False)
        async with open_gateway(settings, registry=registry) as gateway:
            app = create_app(settings, gateway=gateway)

            async def slow(scope: Scope, receive: Receive, send: Send) -> None:
                # With a root path the router is asked, which strips it; so the request is the same.
                await app({**scope, "root_path": "/", "path": scope["path"]}, receive, send)

            await until(gateway.pods.ready)
            answers = []
            for way in (app, slow):
                transport = httpx.ASGITransport(with_channel(way), raise_app_exceptions=False)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    answers.append(await client.request(method, path, content=b"hello", headers=IDS))
            fast, routed = answers
            assert fast.status_code == routed.status_code == status, (fast.text, routed.text)
            assert fast.content == routed.content
            assert {k: v for k, v in fast.headers.items() if k not in VARYING} == {
                k: v for k, v in routed.headers.items() if k not in VARYING
            }
    finally:
        await pod.stop()
