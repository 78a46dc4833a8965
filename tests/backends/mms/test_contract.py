"""A real Multi Model Server keeps the contract of backends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from marway.settings import load_settings
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.settings import SidecarSettings
from support.mms_models import HANDLER, MmsModels
from support.servers import running_mms
from support.servers.mms import MultiModelServer

# Extended: tests/sidecar/backends/test_mms.py covers what the backend makes of the server's answers.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]


class Subject:
    """The server as the contract suite sees it."""

    streams = False
    workers_die = True

    def __init__(self, running: MultiModelServer) -> None:
        self._running = running
        self._models = MmsModels(running.repository)
        self.backend = open_backend(
            load_settings(
                SidecarSettings, backend="mms", mms_inference=running.url, mms_management=running.management,
                archive_store=running.repository,
            )
        )  # fmt: skip

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        source = "raise RuntimeError('broken')" if broken else HANDLER
        return self._models.model(name, source=source, streaming=streaming)

    async def restart(self) -> None:
        await asyncio.to_thread(self._running.kill)
        await asyncio.to_thread(self._running.start)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with running_mms(tmp_path_factory.mktemp("mms")) as running:
        yield Subject(running)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, subject: Subject) -> None:
    """Each check of the contract suite holds for it."""
    await asyncio.wait_for(run_check(check, subject), 240)
