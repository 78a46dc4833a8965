"""The model server in memory that other tests use keeps the contract of backends as real ones do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from marway.errors import ModelError
from marway.settings import load_settings
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import Backend, ServedModel, WorkerDied
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from marway_sidecar.settings import SidecarSettings
from support.pod import FakeServer


async def answer(model: ServedModel, row: Row) -> Answer:
    verb, _, rest = row.parts[0].value.decode().partition(" ")
    if verb == "fail":
        raise ModelError("on purpose")
    if verb == "die":
        raise WorkerDied("on purpose")
    if verb == "wait":
        await there(rest)
        return Answer(200, b"waited", "text")
    return Answer(200, rest.encode(), "text")


async def pieces(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
    yield Answer(200, b"one", "text")
    await there(row.parts[0].value.decode().partition(" ")[2])
    yield Answer(200, b"two", "text")


async def there(path: str) -> None:
    while not Path(path).exists():
        await asyncio.sleep(0.01)


class FakeBackend(Backend):
    serves = frozenset({"torchserve"})
    server: FakeServer

    def connect(self) -> FakeServer:
        return self.server

    def trouble(self, *, found: bool) -> str:
        return "the fake server is down"


class Subject:
    streams = workers_die = True

    def __init__(self) -> None:
        self.backend = FakeBackend(load_settings(SidecarSettings))
        self.backend.server = FakeServer(answer, pieces)
        self._numbers = itertools.count()

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        if broken:
            self.backend.server.broken.add(name)
        return ServedModel(
            f"{name}-{next(self._numbers)}", name, "1.0", Path("x.mar"), 1, 10.0, 10.0, streaming=streaming
        )

    async def restart(self) -> None:
        self.backend.server.down = True
        self.backend.server = FakeServer(answer, pieces)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check) -> None:
    """Each check of the contract suite holds for the model server in memory."""
    await run_check(check, Subject())
