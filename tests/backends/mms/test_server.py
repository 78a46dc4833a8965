"""A real Multi Model Server under a real sidecar: an archive of its own archiver, its errors, its workers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from marway.deadline import Deadline
from marway.errors import MarwayError, ModelError
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.wire.envelope import Part, Row
from marway_archiver import publish_archive
from marway_sidecar.backends.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.backends.mms import MmsServer
from support.mms_models import HANDLER, MmsModels
from support.registry import until
from support.servers import environment, running_mms
from support.servers.mms import MultiModelServer
from support.torchserve import sidecar

# Extended: tests/sidecar/backends/test_mms.py has the same table, and what is made of it.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MultiModelServer]:
    with running_mms(tmp_path_factory.mktemp("mms"), metric_time_interval=1) as server:
        yield server


@pytest_asyncio.fixture
async def server(running: MultiModelServer) -> AsyncIterator[MmsServer]:
    client = MmsServer(running.url, running.management, batch_delay_ms=50)
    yield client
    await client.aclose()


async def ask(server: MmsServer, model: ServedModel, text: str, **headers: str) -> tuple[int, bytes, str | None]:
    row = Row("r", [Part("data", text.encode(), "text/plain")], {"content-type": "text/plain", **headers})
    (answer,) = await server.predict(model, [row], Deadline.after(30))
    return answer.status, answer.body, answer.content_type


async def test_its_errors_are_those_of_the_table(running: MultiModelServer, server: MmsServer) -> None:
    """What a handler raises, sets and returns is told apart from what becomes of its worker."""
    model = MmsModels(running.repository).model("errors")
    with pytest.raises(NotLoaded):
        await ask(server, model, "say x")
    await server.load(model)
    assert await ask(server, model, "teapot") == (418, b"a,b", "text/csv")
    assert b'"tenant": "t1"' in (await ask(server, model, "echo", **{"x-tenant": "t1"}))[1]
    for text, status in (("fail", 500), ("refuse 422", 422), ("refuse 503", 500), ("memory", 507), ("object", 500)):
        with pytest.raises(ModelError) as raised:
            await ask(server, model, text)
        assert raised.value.status == status, text
    with pytest.raises(MarwayError, match="larger than Multi Model Server takes"):
        await ask(server, model, "x" * 7_000_000)
    with pytest.raises(WorkerDied):
        await ask(server, model, "large 7000000")  # over its max_response_size, it drops the worker
    assert (await ask(server, model, "say alive"))[1] == b"alive"
    await server.unload(model)


async def test_it_makes_batches_and_says_what_workers_take(running: MultiModelServer, server: MmsServer) -> None:
    """Rows that come together are one call of the handler where a delay is set; memory is known after a moment."""
    model = MmsModels(running.repository).model("batches", batch_rows=4)
    await server.load(model)
    answers = await asyncio.gather(*(ask(server, model, "echo") for _ in range(4)))
    assert any(b'"rows": 4' in body for _, body, _ in answers)

    async def measured() -> bool:
        return all(worker.private_bytes > 1_000_000 for worker in (await server.status()).workers)

    while not await measured():
        await asyncio.sleep(0.1)
    await server.unload(model)


def test_an_archive_of_its_own_archiver_is_served(running: MultiModelServer, tmp_path: Path) -> None:
    """What `model-archiver` made is published, loaded and answered as it is; a killed worker is told and replaced."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "service.py").write_text(HANDLER)
    archiver = str(environment("mms") / "model-archiver")
    command = [archiver, "--model-name", "old", "--handler", "service:handle", "--model-path", str(source)]
    subprocess.run([*command, "--export-path", str(tmp_path)], check=True, capture_output=True)
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    record, _ = publish_archive(tmp_path / "old.mar", registry=registry.url, create_registry=True, backend="mms")
    assert (record.name, record.version, record.backend) == ("old", "1.0", "mms")
    settings = {"mms_inference": running.url, "mms_management": running.management}
    arguments = ("--backend", "mms", "--archive-store", str(running.repository), "--runtime-dir", str(tmp_path))
    with (
        sidecar(tmp_path, registry.url, *arguments, **settings) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        headers = {"content-type": "text/plain"}
        answer = client.post("/predict/old/1.0", content=b"say hello", headers=headers)
        assert (answer.status_code, answer.text) == (200, "hello")
        status = client.get("/status").json()
        assert (status["backend"], status["serves"]) == ("mms", ["mms"])
        assert client.post("/predict/old/1.0", content=b"die", headers=headers).status_code == 503
        assert client.post("/predict/old/1.0", content=b"say again", headers=headers).text == "again"
        running.kill()
        running.start()
        asyncio.run(until(lambda: client.get("/readyz").status_code == 200, within_s=60))
        assert client.post("/predict/old/1.0", content=b"say back", headers=headers).text == "back"
