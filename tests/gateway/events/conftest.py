from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook as Verifier

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


class Receiver:
    """A real HTTP server that checks what it is sent with Standard Webhooks' own verification.

    Attributes:
        answers: Status and headers of the next answers; 204 when there are none.
        got: What was verified, by `webhook-id`.
        targets: The URL of every request.
        ids: Every `webhook-id` that came, also of what was refused.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.got: dict[str, dict[str, object]] = {}
        self.ids: list[str] = []
        self.url = ""
        self.targets: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.targets.append(str(request.url))
        document = Verifier(SECRET).verify(body, dict(request.headers))
        assert request.content_type == "application/cloudevents+json"
        self.ids.append(request.headers["webhook-id"])
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        if status < 300:
            self.got[request.headers["webhook-id"]] = document
        return web.Response(status=status, headers=headers, text=None if status == 204 else "not now")


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """A receiver of webhooks, which no proxy of this machine is before."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.handle)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/hook"))
        yield made
