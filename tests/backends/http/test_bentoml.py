"""The backend `http` with a real BentoML: one version, which is said in settings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from support.bundles import write_bundle
from support.http_pod import http_pod, until_up
from support.registry import publish, until
from support.servers import running_bentoml
from support.servers.bentoml import BentoML

# Extended: tests/sidecar/backends/test_http_pod.py does the same with a server in its process.
pytestmark = [pytest.mark.extended, pytest.mark.e2e, pytest.mark.timeout(240)]

SERVICE = """\
import asyncio
from pathlib import Path
from typing import Annotated, AsyncGenerator

import bentoml
from bentoml.validators import ContentType

@bentoml.service(traffic={"timeout": 60, "max_concurrency": 2})
class Service:
    @bentoml.api
    async def predict(self, text: str) -> dict:
        if text == "fail":
            raise ValueError("on purpose")
        if text.startswith("wait "):
            while not Path(text[5:]).exists():
                await asyncio.sleep(0.02)
        return {"said": text.upper()}

    @bentoml.api
    async def words(self, left: str) -> AsyncGenerator[Annotated[str, ContentType("text/event-stream")], None]:
        try:
            while True:
                yield "data: word\\n\\n"
                await asyncio.sleep(0.02)
        finally:
            Path(left).touch()
"""


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BentoML]:
    directory = tmp_path_factory.mktemp("bentoml")
    (directory / "service.py").write_text(SERVICE)
    with running_bentoml(directory) as server:
        yield server


@asynccontextmanager
async def pod(bento: BentoML, scratch: Path, **facts: object) -> AsyncIterator[httpx.AsyncClient]:
    scratch.mkdir(exist_ok=True)
    registry = Registry(DirectoryStore(scratch / "registry"))
    for name in ("predict", "words"):
        data = write_bundle(scratch / f"{name}.bundle", "http", name=name).read_bytes()
        publish(registry, scratch, name, "1.0", data=data, backend="http", serving={"streaming": name == "words"})
    settings = {
        "http_predict": f"{bento.url}/{{model}}",
        "http_health": f"{bento.url}/readyz",
        "http_serves": "predict/1.0,words/1.0",
        **facts,
    }
    async with http_pod(registry, scratch, **settings) as client:
        yield client


async def test_answers_errors_and_overload(bento: BentoML, tmp_path: Path) -> None:
    """Answers and what the service says of a bad request pass; its failures and refusals are what they are here."""
    gate = tmp_path / "gate"
    async with pod(bento, tmp_path) as client:
        answer = await client.post("/predict/predict/1.0", json={"text": "hello"})
        assert (answer.status_code, answer.json()) == (200, {"said": "HELLO"})
        assert answer.headers["content-type"] == "application/json"
        bad = await client.post("/predict/predict/1.0", json={"other": 1})
        assert (bad.status_code, "text" in bad.text) == (400, True)
        failed = await client.post("/predict/predict/1.0", json={"text": "fail"})
        assert (failed.status_code, failed.headers["x-marway-outcome"]) == (500, "model_error")
        waiting = [
            asyncio.create_task(client.post("/predict/predict/1.0", json={"text": f"wait {gate}"})) for _ in range(4)
        ]
        done, _ = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        refused = done.pop().result()
        assert (refused.status_code, refused.headers["x-marway-outcome"]) == (429, "not_accepted")
        gate.touch()
        assert sorted({answer.status_code for answer in await asyncio.gather(*waiting)}) == [200, 429]
    async with pod(bento, tmp_path / "few", http_concurrency=2) as client:
        told = [client.post("/predict/predict/1.0", json={"text": f"{number}"}) for number in range(12)]
        assert [answer.json()["said"] for answer in await asyncio.gather(*told)] == [f"{n}" for n in range(12)]


async def test_events_and_who_leaves(bento: BentoML, tmp_path: Path) -> None:
    """Events come while the service makes them, and it hears when nobody reads them any more."""
    left = tmp_path / "left"
    async with pod(bento, tmp_path) as client:
        async with client.stream("POST", "/predict/words/1.0", json={"left": str(left)}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = answer.aiter_lines()
            assert [await anext(events) for _ in range(6)] == ["data: word", ""] * 3
            assert not left.exists()
        await until(left.exists, within_s=20)


async def test_it_is_killed_and_serves_again(bento: BentoML, tmp_path: Path) -> None:
    """While it is away the pod is not ready and tells callers so; when it is back nobody has to do anything."""
    async with pod(bento, tmp_path) as client:
        asked = {"url": "/predict/predict/1.0", "content": json.dumps({"text": "x"})}
        sent = {"headers": {"content-type": "application/json"}}
        assert (await client.post(**asked, **sent)).status_code == 200
        bento.kill()
        await until_up(client, up=False)
        down = await client.post(**asked, **sent)
        assert (down.status_code, down.json()["code"]) == (503, "runtime_down")
        await asyncio.to_thread(bento.start)
        await until_up(client)
        assert (await client.post(**asked, **sent)).json() == {"said": "X"}
