"""The backend `http` keeps the contract, with a server that loads and unloads what it is told to."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from support.bundles import write_bundle
from support.http_model_server import HttpModelServer, http_backend, running


class Subject:
    """The backend as the contract suite sees it."""

    streams = workers_die = True

    def __init__(self, server: HttpModelServer, scratch: Path) -> None:
        models = f"{server.url}/models/{{server_name}}"
        self.backend = http_backend(
            http_predict=f"{models}/predict",
            http_health=f"{server.url}/health",
            http_ready=models,
            http_load=f"PUT {models}",
            http_unload=models,
            http_models=scratch / "models",
        )
        self._server = server
        self._scratch = scratch
        self._numbers = itertools.count()

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        server_name = f"{name}-{next(self._numbers)}"
        files = {"readme.txt" if broken else "model.txt": b"a model"}
        bundle = write_bundle(self._scratch / f"{server_name}.bundle", "http", files, name=name)
        return ServedModel(server_name, name, "1.0", bundle, 1, 2.0, 10.0, streaming=streaming)

    async def restart(self) -> None:
        await self._server.stop()
        await self._server.start()


@pytest_asyncio.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    async with running() as server:
        yield Subject(server, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, subject: Subject) -> None:
    """Each check of the contract suite holds for a server that is asked over HTTP."""
    await run_check(check, subject)
