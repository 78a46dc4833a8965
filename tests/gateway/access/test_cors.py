"""Which web pages may read what the public port answers; tests/ports/test_browser.py asks a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from pydantic import ValidationError

from gateway.fakes import FakePod, busy, hang, running
from marway.errors import InvalidSettings
from marway.registry import Registry
from marway.settings import load_settings
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.settings import GatewaySettings
from support.ports import Answer, Port
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
PAGE = "https://app.example.com"
LOCAL = "http://localhost:3000"
OTHER = "https://elsewhere.example.com"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type,x-own"}
BROKEN = b"GET /models HTTP/1.1\r\nhost: a\r\norigin: %b\r\n" % PAGE.encode()


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


def readable(answer: httpx.Response | Answer, by: str = PAGE) -> bool:
    """Return whether a page may read an answer and its headers; nobody's credentials are ever let in."""
    headers = answer.headers
    assert "access-control-allow-credentials" not in headers
    if headers.get("access-control-allow-origin") != by:
        return False
    exposed = headers["access-control-expose-headers"]
    assert all(
        name in exposed
        for name in ("x-request-id", "x-prediction-id", "x-model-version", "x-cache", "retry-after", "*")
    )
    assert by == "*" or "origin" in headers["vary"].lower()
    return True


async def test_off(registry: Registry, make_pod: MakePod) -> None:
    """Without the setting no answer names an origin, and a browser's question is the routes' affair."""
    async with running(await make_pod(), registry=registry) as gateway:
        answer = await gateway.predict(origin=PAGE)
        asked = await gateway.client.options("/predict/intent", headers={"origin": PAGE, **ASKS})
    assert (answer.status_code, asked.status_code) == (200, 405)
    for each in (answer, asked):
        assert not {name for name in each.headers if name.startswith("access-control-") or name == "vary"}


async def test_answers(registry: Registry, make_pod: MakePod) -> None:
    """Pages of the named origins may read answers, small and large, others none; caches are told of the difference."""
    async with running(await make_pod(), registry=registry, cors_origins=f"{PAGE}, {LOCAL}") as gateway:
        for body in (b"hello", b"x" * 3_000_000):
            for origin in (PAGE, LOCAL):
                answer = await gateway.predict(body=body, origin=origin)
                assert (answer.content, readable(answer, origin)) == (body, True)
            for sent in ({"origin": OTHER}, {"origin": "null"}, {"origin": PAGE + ".evil.com"}, {}):
                answer = await gateway.predict(body=body, **sent)
                assert answer.status_code == 200
                assert "access-control-allow-origin" not in answer.headers
                assert answer.headers["vary"] == "Origin"
        admin = await gateway.admin.get("/pods", headers={"origin": PAGE})
        assert (admin.status_code, admin.json()["code"]) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in admin.headers


async def test_any_origin(registry: Registry, make_pod: MakePod) -> None:
    """`*` lets every page read, and says so to all alike."""
    async with running(await make_pod(), registry=registry, cors_origins="*") as gateway:
        answer = await gateway.predict(origin=OTHER)
        asked = await gateway.client.options("/predict/intent", headers={"origin": OTHER, **ASKS})
    assert readable(answer, "*")
    assert readable(asked, "*")
    assert "vary" not in answer.headers


async def test_questions(registry: Registry, tmp_path: Path) -> None:
    """A browser's question needs no token, and is answered for any header; one of a page not named is refused."""
    tokens = tmp_path / "tokens"
    tokens.write_text("one-token\n")
    tokens.chmod(0o600)
    async with running(registry=registry, cors_origins=PAGE, predict_tokens_file=tokens) as gateway:
        for path in ("/predict/intent", "/v1/models/intent:predict", "/models", "/"):
            asked = await gateway.client.options(path, headers={"origin": PAGE, **ASKS})
            assert (asked.status_code, asked.content, readable(asked)) == (204, b"", True)
            assert asked.headers["access-control-allow-headers"] == ASKS["access-control-request-headers"]
            assert "POST" in asked.headers["access-control-allow-methods"]
            assert int(asked.headers["access-control-max-age"]) > 0
            refused = await gateway.client.options(path, headers={"origin": OTHER, **ASKS})
            assert (refused.status_code, "MARWAY_GATEWAY_CORS_ORIGINS" in refused.text) == (403, True)
            assert "access-control-allow-origin" not in refused.headers
        plain = await gateway.client.options("/models", headers={"origin": PAGE})
        assert (plain.status_code, readable(plain)) == (401, True)  # no question of a browser's


async def test_errors(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Whatever goes wrong, on whatever way, the page can read it."""
    tokens = tmp_path / "tokens"
    tokens.write_text("one-token\n")
    tokens.chmod(0o600)
    flags = {
        "cors_origins": PAGE,
        "max_requests_per_version": 1,
        "queue_limit": 0,
        "max_body_bytes": 1000,
        "header_timeout_s": 1,
        "body_timeout_s": 1,
    }
    pod = await make_pod()
    async with running(pod, registry=registry, predict_tokens_file=tokens, **flags) as gateway:
        known = {"origin": PAGE, "authorization": "Bearer one-token"}
        port = Port("gateway", gateway.addresses.gateway, "/predict/intent")
        answers = [
            await gateway.predict(origin=PAGE),
            await gateway.predict("/predict/nothing", **known),
            await gateway.predict(body=b"x" * 2000, **known),
            await gateway.predict(content_encoding="br", **known),
        ]
        pod.behave = busy
        answers.append(await gateway.predict(x_request_timeout_ms="500", **known))
        pod.behave, asked = hang, len(pod.requests)
        waiting = asyncio.create_task(gateway.predict(**known))
        while len(pod.requests) == asked:
            await asyncio.sleep(0.01)
        answers.append(await gateway.predict(**known))
        waiting.cancel()
        assert [each.status_code for each in answers] == [401, 404, 413, 415, 503, 429]
        assert all(map(readable, answers))
        sent = b"POST /predict/intent HTTP/1.1\r\nhost: a\r\norigin: %b\r\ncontent-length: 9\r\n" % PAGE.encode()
        for status, request in (
            (408, BROKEN + b"x-slow: y"),
            (408, sent + b"authorization: Bearer one-token\r\n\r\nx"),
            (431, BROKEN + b"x: y\r\n" * 200 + b"\r\n"),
            (400, BROKEN + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n"),
        ):
            (answer,) = await port.answers(request)
            assert (answer.status, readable(answer)) == (status, True), request


async def test_streams(registry: Registry, make_pod: MakePod) -> None:
    """An answer in pieces and one as events can be read, whatever the handler says of origins itself."""

    async def pieces(pod: FakePod, request: web.Request) -> web.StreamResponse:
        own = {"access-control-allow-origin": "*", "access-control-allow-credentials": "true", "x-own": "kept"}
        response = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED, "content-type": "text/plain", **own})
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"piece")
            await asyncio.sleep(0)
        return response

    pod = await make_pod(behave=pieces)
    async with running(pod, registry=registry, cors_origins=PAGE) as gateway:
        whole = await gateway.predict(origin=PAGE)
        events = await gateway.predict(origin=PAGE, accept="text/event-stream")
        strange = await gateway.predict(origin=OTHER)
    assert (whole.text, readable(whole), whole.headers["x-own"]) == ("piece" * 3, True, "kept")
    assert "event: end" in events.text
    assert readable(events)
    assert not readable(strange)
    assert strange.headers["x-own"] == "kept"


async def test_handlers_own_word(registry: Registry, make_pod: MakePod) -> None:
    """What a handler says of origins counts without the setting, and not with it."""

    async def open_to_all(pod: FakePod, request: web.Request) -> web.StreamResponse:
        own = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "x-own": "kept"}
        return web.Response(text="answer", headers={OUTCOME: Outcome.ANSWERED, **own})

    pod = await make_pod(behave=open_to_all)
    async with running(pod, registry=registry) as gateway:
        assert (await gateway.predict(origin=OTHER)).headers["access-control-allow-origin"] == "*"
    async with running(pod, registry=registry, cors_origins=PAGE) as gateway:
        for _ in range(2):
            answer = await gateway.predict(origin=PAGE)
            assert (answer.text, readable(answer), answer.headers["x-own"]) == ("answer", True, "kept")
            assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
            assert not readable(await gateway.predict(origin=OTHER))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ()),
        (" https://App.example.com ,http://localhost:3000,", (PAGE, LOCAL)),
        (["https://app.example.com:443", "http://a:80", "http://[::1]:8080"], (PAGE, "http://a", "http://[::1]:8080")),
        ("*", ("*",)),
    ],
)
def test_setting(registry: Registry, given: object, kept: tuple[str, ...]) -> None:
    """Origins are kept as browsers write them."""
    assert load_settings(GatewaySettings, registry=registry.url, cors_origins=given).cors_origins == kept


@pytest.mark.parametrize(
    "given",
    ["app.example.com", "https://app.example.com/", "https://app.example.com/x", "https://*.example.com", "null"]
    + ["ftp://a", "https://", "https://a:b", "https://u@a", "*, https://app.example.com"],
)
def test_what_is_no_origin(registry: Registry, given: str) -> None:
    """Anything else is refused with what to write."""
    with pytest.raises((InvalidSettings, ValidationError), match="origin"):
        load_settings(GatewaySettings, registry=registry.url, cors_origins=given)
