"""How live parts of pages are made, without a gateway."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from marway.errors import MarwayError, Overloaded
from marway_gateway.console.live import LiveParts, _stream, live_router


class Pages:
    """Stands for the app: answers with whatever the page is now, as long as it is to take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.took_s = 0.0
        self.text = "a"
        self.status = 200
        self.asked: list[str] = []
        self.parts = LiveParts(lambda: self.now)
        self.router = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await asyncio.sleep(0)
        self.now += self.took_s
        body = f'<main><h1>Never sent</h1><div id="live" data-live>{self.text}</div></main>'.encode()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def request(self, query: bytes = b"") -> Request:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/console/live/pods", "query_string": query}
        return Request({**scope, "headers": [], "app": self, "server": ("a", 80), "scheme": "http"})


@pytest.fixture
def pages() -> Pages:
    return Pages()


async def test_times_are_no_change(pages: Pages) -> None:
    """That a minute more has passed since something is no reason to send a page again; anything else is."""
    pages.text = '<time datetime="2026-01-01">1 min ago</time> ready'
    before = await pages.parts.part(pages.request(), "pods")
    pages.now, pages.text = 10, '<time datetime="2026-01-01">2 min ago</time> ready'
    after = await pages.parts.part(pages.request(), "pods")
    assert (before.text != after.text, before.digest) == (True, after.digest)
    pages.now, pages.text = 20, '<time datetime="2026-01-01">2 min ago</time> failed'
    assert (await pages.parts.part(pages.request(), "pods")).digest != before.digest
    assert "Never sent" not in (after.text or "")


async def test_made_once_for_all_who_look(pages: Pages) -> None:
    """Of those who look at the same page at the same time one has it made; another query is another page."""
    asked = (pages.parts.part(pages.request(query), "pods") for query in (b"", b"", b"contains=a", b""))
    await asyncio.gather(*asked)
    assert pages.asked == ["/console/pods"] * 2
    await pages.parts.part(pages.request(), "pods")
    assert len(pages.asked) == 2
    await pages.parts.part(pages.request(), "pods", anew=True)
    assert len(pages.asked) == 3


async def test_slow_pages_are_made_seldom(pages: Pages) -> None:
    """A page that takes 200 ms is made every 4 s, and one that takes for ever every 30 s."""
    pages.took_s = 0.2
    assert (await pages.parts.part(pages.request(), "pods")).pause_s == pytest.approx(4)
    pages.took_s = 60.0
    assert (await pages.parts.part(pages.request(b"x"), "pods")).pause_s == 30


async def test_a_stream_ends(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends after a minute, when the page is no more, and when the gateway stops; it is counted meanwhile."""

    async def later(seconds: float) -> None:
        pages.now += seconds

    request, stopping = pages.request(), False
    first = await pages.parts.part(request, "pods")
    monkeypatch.setattr("marway_gateway.console.live.asyncio.sleep", later)
    said = [each async for each in _stream(pages.parts, request, "pods", first, lambda: stopping)]
    assert 60 <= pages.now < 62
    assert said[0].startswith("retry: 1000\n\nevent: part\ndata: <div")
    assert set(said[1:]) == {":\n\n"}
    stream = _stream(pages.parts, request, "pods", first, lambda: stopping)
    await anext(stream)
    assert pages.parts.streams == 1
    pages.status = 404
    assert await anext(stream) == "event: gone\ndata: \n\n"
    assert [each async for each in stream] == []
    assert pages.parts.streams == 0
    stopping = True
    assert len([each async for each in _stream(pages.parts, request, "pods", first, lambda: stopping)]) == 1


async def test_many_at_once_are_bounded(pages: Pages) -> None:
    """Those whose first part is still being made count as well, so that no crowd comes in together."""
    gateway: Any = SimpleNamespace(readiness=SimpleNamespace(draining=False))
    route: Any = live_router(lambda: gateway).routes[0]
    answers = await asyncio.gather(
        *(route.endpoint(pages.request(b"%d" % n), "pods") for n in range(70)), return_exceptions=True
    )
    assert sum(isinstance(each, Overloaded) for each in answers) == 6
    assert (await route.endpoint(pages.request(), "pods")).status_code == 200, "they are counted no more"


async def test_a_stream_whose_page_fails_ends(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a page cannot be made any more its stream ends as others do: what comes next says why."""

    async def later(seconds: float) -> None:
        pages.now += seconds

    async def fails(*_: object) -> tuple[int, bytes]:
        raise MarwayError("the registry is gone")

    first = await pages.parts.part(pages.request(), "pods")
    monkeypatch.setattr("marway_gateway.console.live.asyncio.sleep", later)
    monkeypatch.setattr("marway_gateway.console.live._page", fails)
    assert len([each async for each in _stream(pages.parts, pages.request(), "pods", first, lambda: False)]) == 1
    assert pages.parts.streams == 0
