from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.threads import Threads
from support.pools import PoolRoom
from support.registry import publish


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry in a directory."""
    return Registry(DirectoryStore(tmp_path / "registry"))


@pytest.fixture
def record(tmp_path: Path, registry: Registry) -> VersionRecord:
    """A published version, whose archive is a few bytes."""
    return publish(registry, tmp_path, "some", "1.0")


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(4)
    yield made
    made.close()


@pytest.fixture
def metrics() -> SidecarMetrics:
    return SidecarMetrics()


@pytest.fixture
async def room(tmp_path: Path, registry: Registry, threads: Threads) -> AsyncIterator[PoolRoom]:
    """Makes model pools, and closes them at the end."""
    made = PoolRoom(tmp_path, registry, threads)
    yield made
    await made.aclose()
