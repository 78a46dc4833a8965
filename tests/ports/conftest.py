"""The three ports that speak HTTP, for tests of what all of them promise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.objects import DirectoryStore
from marway.registry import Registry
from support.pod import serving
from support.ports import Port
from support.registry import publish


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(DirectoryStore(tmp_path / "registry"))
    publish(made, tmp_path, "intent", "1.0")
    return made


@pytest.fixture
async def sidecar_port(registry: Registry, tmp_path: Path) -> AsyncIterator[Port]:
    async with serving(registry, tmp_path) as pod:
        yield Port("sidecar", pod.url, "/predict/intent")


@pytest.fixture
async def gateway_port(registry: Registry) -> AsyncIterator[Port]:
    pod = FakePod("a")
    await pod.start()
    try:
        async with running(pod, registry=registry) as gateway:
            yield Port("gateway", gateway.addresses.gateway, "/predict/intent")
    finally:
        await pod.stop()


@pytest.fixture
async def admin_port(registry: Registry) -> AsyncIterator[Port]:
    async with running(registry=registry) as gateway:
        yield Port("admin", gateway.addresses.admin, "/v2/repository/index")


@pytest.fixture(params=["gateway_port", "admin_port", "sidecar_port"])
def port(request: pytest.FixtureRequest) -> Port:
    """Each of them in turn."""
    made: Port = request.getfixturevalue(request.param)
    return made
