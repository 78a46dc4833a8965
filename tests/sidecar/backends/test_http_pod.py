"""A pod whose model server is asked over HTTP: from a client of the sidecar to the server and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from marway.objects import DirectoryStore
from marway.registry import Registry
from support.bundles import write_bundle
from support.http_model_server import HttpModelServer, running
from support.http_pod import http_pod, until_up
from support.registry import publish, until

pytestmark = pytest.mark.timeout(60)


@pytest_asyncio.fixture
async def there() -> AsyncIterator[HttpModelServer]:
    async with running() as server:
        yield server


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(DirectoryStore(tmp_path / "registry"))


def pod(
    there: HttpModelServer, registry: Registry, scratch: Path, **flags: object
) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Serve a sidecar beside the server, which loads what it is told to, and give a client of it."""
    models = f"{there.url}/models/{{server_name}}"
    given: dict[str, object] = {
        "http_predict": f"{models}/predict",
        "http_health": f"{there.url}/health",
        "http_ready": models,
        "http_load": f"PUT {models}",
        "http_unload": models,
        "http_models": scratch / "models",
        **flags,
    }
    return http_pod(registry, scratch, **given)


def published(registry: Registry, scratch: Path, name: str, **serving: object) -> None:
    bundle = write_bundle(scratch / f"{name}.bundle", "http", {"model.txt": b"x"}, name=name)
    publish(registry, scratch, name, "1.0", data=bundle.read_bytes(), backend="http", serving=serving)


async def test_a_prediction_goes_all_the_way(there: HttpModelServer, registry: Registry, tmp_path: Path) -> None:
    """The first request has the version fetched, unpacked and loaded; an unload has it removed; the status shows it."""
    published(registry, tmp_path, "tiny")
    async with pod(there, registry, tmp_path) as client:
        answer = await client.post("/predict/tiny/1.0", content=b"say hello")
        assert (answer.status_code, answer.text, answer.headers["x-model-name"]) == (200, "hello", "tiny")
        assert (tmp_path / "models" / answer.headers["x-model-id"] / "model.txt").exists()
        status = (await client.get("/status")).json()
        assert (status["backend"], status["server_version"]) == ("http", "contract/1.0")
        failed = await client.post("/predict/tiny/1.0", content=b"fail")
        assert (failed.status_code, failed.json()["detail"]) == (500, "tiny 1.0 failed: on purpose")
        assert (await client.post("/models/tiny/1.0/unload")).status_code == 200
        assert there.loaded == {}


async def test_events_pass_as_they_come(there: HttpModelServer, registry: Registry, tmp_path: Path) -> None:
    """The pieces of a streaming version reach the client as the server sends them, with its content type."""
    published(registry, tmp_path, "words", streaming=True)
    gate = tmp_path / "gate"
    asked = {"url": "/predict/words/1.0", "content": f"pieces {gate}".encode()}
    async with pod(there, registry, tmp_path) as client, client.stream("POST", **asked) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"one"
        gate.touch()
        assert [piece async for piece in pieces] == [b"two"]


async def test_who_leaves_frees_the_server(there: HttpModelServer, registry: Registry, tmp_path: Path) -> None:
    """A client that goes away, whole answer or stream, and one that ran out of time have their requests ended there."""
    published(registry, tmp_path, "tiny")
    published(registry, tmp_path, "words", streaming=True)
    never = tmp_path / "never"
    async with pod(there, registry, tmp_path) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/predict/tiny/1.0", content=f"wait {never}".encode(), timeout=0.5)
        await until(lambda: there.left == 1, within_s=10)
        async with client.stream("POST", "/predict/words/1.0", content=f"pieces {never}".encode()) as answer:
            assert await anext(answer.aiter_raw()) == b"one"
        await until(lambda: there.left == 2, within_s=10)
        late = await client.post(
            "/predict/tiny/1.0", content=f"wait {never}".encode(), headers={"x-request-timeout-ms": "200"}
        )
        assert late.status_code == 504
        await until(lambda: there.left == 3, within_s=10)
        assert (await client.post("/predict/tiny/1.0", content=b"say on")).text == "on"


async def test_many_at_once_and_no_more(there: HttpModelServer, registry: Registry, tmp_path: Path) -> None:
    """So many requests as the setting says are at the server; the others wait in the sidecar and are answered, too."""
    published(registry, tmp_path, "tiny")
    gate = tmp_path / "gate"
    async with pod(there, registry, tmp_path, http_concurrency=3) as client:
        await client.post("/predict/tiny/1.0", content=b"say x")
        asking = [
            asyncio.create_task(client.post("/predict/tiny/1.0", content=f"wait {gate}".encode())) for _ in range(8)
        ]
        await until(lambda: there.waiting == 3, within_s=10)
        await asyncio.sleep(0.1)
        assert there.waiting == 3
        gate.touch()
        assert [answer.text for answer in await asyncio.gather(*asking)] == ["waited"] * 8
        assert there.most_waiting == 3


async def test_a_server_that_is_busy_is_not_taken_for_broken(
    there: HttpModelServer, registry: Registry, tmp_path: Path
) -> None:
    """However often it says that it takes no more now, it is asked again, and requests may go elsewhere at no cost."""
    published(registry, tmp_path, "tiny")
    async with pod(there, registry, tmp_path, breaker_failures=2) as client:
        await client.post("/predict/tiny/1.0", content=b"say x")
        there.busy = True
        for _ in range(4):
            refused = await client.post("/predict/tiny/1.0", content=b"say x")
            assert (refused.status_code, refused.headers["x-marway-outcome"]) == (429, "not_accepted")
            assert refused.headers["retry-after"] == "1"
        there.busy = False
        assert (await client.post("/predict/tiny/1.0", content=b"say y")).text == "y"


async def test_a_server_that_was_restarted_gets_its_versions_back(
    there: HttpModelServer, registry: Registry, tmp_path: Path
) -> None:
    """One that is killed and comes back, or that silently lost what it had, serves again without being asked to."""
    published(registry, tmp_path, "tiny")
    async with pod(there, registry, tmp_path) as client:
        await client.post("/predict/tiny/1.0", content=b"say x")
        await there.stop()
        async with asyncio.timeout(10):
            while (await client.get("/readyz")).status_code == httpx.codes.OK:
                await asyncio.sleep(0.02)
        down = await client.post("/predict/tiny/1.0", content=b"say x")
        assert down.status_code == 503
        await there.start()
        await until_up(client)
        await until(lambda: there.loaded != {}, within_s=10)
        assert (await client.post("/predict/tiny/1.0", content=b"say back")).text == "back"
        there.loaded.clear()
        await until(lambda: there.loaded != {}, within_s=10)
        assert (await client.post("/predict/tiny/1.0", content=b"say again")).text == "again"


async def test_a_call_of_openais_api_streams_when_it_says_so(
    there: HttpModelServer, registry: Registry, tmp_path: Path
) -> None:
    """As gateways send it: the call behind the model in its path, a header that says that its answer is a stream."""
    published(registry, tmp_path, "tiny")
    none = dict.fromkeys(("http_predict", "http_ready", "http_load", "http_unload", "http_models"))
    async with pod(there, registry, tmp_path, http_openai=f"{there.url}/v1", **none) as client:
        sent = {"content-type": "application/json", "x-marway-url-path": "openai/v1/chat/completions"}
        whole = await client.post("/predict/tiny/1.0", content=b'{"model": "tiny/PROD"}', headers=sent)
        assert whole.json() == {"call": "chat/completions", "asked": {"model": "tiny"}}
        sent["x-marway-stream"] = "1"
        body = json.dumps({"model": "tiny", "stream": True}).encode()
        streamed = await client.post("/predict/tiny/1.0", content=body, headers=sent)
        assert streamed.headers["content-type"] == "text/event-stream"
        assert streamed.text.count("data: ") == 3
