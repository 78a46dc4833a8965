"""Both engines of our runtime keep the contract of backends: one server of each for the whole suite."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import aclosing

import httpx
import pytest

from marway.deadline import Deadline
from marway.settings import load_settings
from marway.wire.envelope import Part, Row
from marway.wire.runtime import RUNTIME_SOCKET, read_runtime_info, short_path
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.settings import SidecarSettings
from support.registry import until
from support.torchserve import OurTorchServe, archive, served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HANDLER = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response

def wait_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def answer(text, context):
    verb, _, rest = text.partition(" ")
    if verb == "fail":
        raise ValueError("on purpose")
    if verb == "die":
        os._exit(3)
    if verb == "pieces":
        send_intermediate_predict_response(["one"], context.request_ids, "ok", 200, context)
    if verb in ("pieces", "wait"):
        wait_for(rest)
    return {"pieces": "two", "wait": "waited"}.get(verb, rest)

def handle(data, context):
    return [answer(row["data"], context) for row in data] if data is not None else None
"""

ASYNC = """
import asyncio
from ts.handler_utils.utils import send_intermediate_predict_response

class Async:
    def initialize(self, context):
        self.met = asyncio.Event()

    async def handle(self, data, context):
        said = data[0]["data"]
        if said == "meet":
            self.met.set()
        send_intermediate_predict_response([said + " "], context.request_ids, "ok", 200, context)
        await self.met.wait()
        return ["met"]
"""
CONTINUOUS = """
class Continuous:
    def initialize(self, context):
        self.words = {}

    def handle(self, data, context):
        ids = list(context.request_ids.values())
        self.words.update({name: row["data"].split() for name, row in zip(ids, data) if row})
        context.stopping_criteria = [lambda _, name=name: not self.words[name] for name in ids]
        return [self.words[name].pop(0) + " " for name in ids]
"""


class Subject:
    """A runtime as the contract suite sees it."""

    streams = workers_die = True

    def __init__(self, torchserve: OurTorchServe, engine: str) -> None:
        self._torchserve = torchserve
        self._directory = torchserve.runtime_dir
        self._numbers = itertools.count()
        self.backend = open_backend(
            load_settings(SidecarSettings, backend=engine, runtime_dir=self._directory, archive_store=torchserve.store)
        )

    def model(
        self, name: str, *, streaming: bool = False, broken: bool = False, source: str = HANDLER, config: str = ""
    ) -> ServedModel:
        name = f"{name}-{next(self._numbers)}"
        source = "raise RuntimeError('broken')" if broken else source
        path = archive(self._torchserve.store, name, source, config=config or None)
        return served(path, name, streaming=streaming, load_timeout_s=60.0)

    async def restart(self) -> None:
        before = self._torchserve.info.boot_id
        with short_path(self._directory / RUNTIME_SOCKET) as socket:
            transport = httpx.AsyncHTTPTransport(uds=socket)
            async with httpx.AsyncClient(transport=transport, base_url="http://runtime", timeout=60) as client:
                assert (await client.post("/restart")).is_success
        await until(lambda: self._boot_id() not in (None, before), within_s=120)

    def _boot_id(self) -> str | None:
        info = read_runtime_info(self._directory)
        return info.boot_id if info is not None else None


@pytest.fixture(scope="module", params=["torchserve", "native"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with OurTorchServe(tmp_path_factory.mktemp("contract"), engine=request.param) as running:
        yield Subject(running, request.param)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, subject: Subject) -> None:
    """Each check of the contract suite holds for TorchServe, and for the engine without it."""
    await asyncio.wait_for(run_check(check, subject), 240)


async def pieces_of(server: ModelServer, model: ServedModel, said: str) -> list[bytes]:
    row = Row("same", [Part("data", said.encode(), "text/plain")], {"content-type": "text/plain"})
    async with aclosing(server.predict_stream(model, row, Deadline.after(60))) as pieces:
        return [piece.body async for piece in pieces]


@pytest.mark.parametrize("way", ["async", "continuous"])
async def test_many_calls_are_under_way_in_one_worker(subject: Subject, way: str) -> None:
    """Archives of `asyncCommunication` and `continuousBatching`: each caller gets its own pieces, however many ask."""
    config = {"async": "asyncCommunication: true\n", "continuous": "continuousBatching: true\nbatchSize: 3\n"}[way]
    model = subject.model(way, streaming=True, source=ASYNC if way == "async" else CONTINUOUS, config=config)
    server = subject.backend.connect()
    assert server is not None
    try:
        found = await server.load(model)
        assert found.calls_per_worker == (256 if way == "async" else 3)
        model = model.as_described(found)
        said = ["wait", "wait", "meet"] if way == "async" else ["a b c", "x", "1 2 3 4 5", "u v"]
        came = await asyncio.gather(*(pieces_of(server, model, each) for each in said))
        ends = ["met"] if way == "async" else []
        assert came == [[f"{word} ".encode() for word in each.split()] + [b"met"] * len(ends) for each in said]
        await server.unload(model)
    finally:
        await server.aclose()
