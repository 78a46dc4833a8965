"""What a gateway knows of how the pod's model server ran a request, and that its caller is told none of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from gateway.fakes import FakePod, answer, hang_up, running
from marway.registry import Registry
from marway.wire.headers import RUN
from marway.wire.model_run import UNKNOWN, ModelRun
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.transport.reply import parse_response_headers
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]


def test_parsing() -> None:
    """It is taken out of the reply's headers, those that many replies share or their own, and goes no further."""
    own = b"x-request-id: r\r\nx-marway-run: 1,2,3,1\r\ncontent-length: 4\r\n"
    for text in (own, b"x-own: 1\r\n\r\n" + own):
        *_, length, run = parse_response_headers(text)
        assert (length, run) == (4, b"1,2,3,1")
        assert b"x-marway" not in parse_response_headers(text)[2].text


async def test_known_of_a_request(
    registry: Registry, tmp_path: Path, make_pod: MakePod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod that answered says it, over frames and HTTP; what was given again from the cache was not run."""
    publish(registry, tmp_path, serving={"cache": True})
    ended: list[RequestInfo] = []
    finish = Telemetry.finish
    monkeypatch.setattr(Telemetry, "finish", lambda self, info: (ended.append(info), finish(self, info))[1])

    async def run(pod: FakePod, request: web.Request) -> web.StreamResponse:
        response = await answer(pod, request)
        response.headers[RUN] = "250,1500,8,0"
        return response

    pod = await make_pod("a", behave=run)
    async with running(pod, registry=registry) as gateway:
        for body in (b"one", b"one"):
            answered = await gateway.predict("/predict/intent", body)
            assert (answered.status_code, RUN in answered.headers) == (200, False)
        pod.behave = hang_up
        assert (await gateway.predict("/predict/intent", b"two")).status_code == 503
    runs = [ModelRun.parse(info.run) for info in ended if info.surface is not None]
    assert runs == [ModelRun(0.000_25, 0.0015, 8, False), UNKNOWN, UNKNOWN]
