"""The pool and what versions require: wheels are fetched with the archive, for the server that the pod has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from marway.archive_store.layout import Layout
from marway.environments.lock import EnvironmentLock, WheelRef
from marway.errors import LoadFailed, Unavailable
from marway.objects import locks
from marway.records import VersionRecord
from marway.registry import Registry, keys
from marway_sidecar.backends.base import Description, ServedModel, ServerInfo
from support.fake_server import FakeServer
from support.pools import PoolRoom, predict, state
from support.registry import publish

pytestmark = pytest.mark.timeout(60)

DATA = b"a wheel"
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Installing(FakeServer):
    """A server that builds environments, and notes what it found for each load."""

    info: ServerInfo = field(default_factory=lambda: ServerInfo("fake", environments_for="3.11/linux-x86_64"))
    found: list[tuple[EnvironmentLock | None, bytes | None, bool]] = field(default_factory=list)

    async def load(self, model: ServedModel) -> Description:
        path = model.archive.with_name(f"{SHA256}.whl")
        free = locks.try_exclusive(Layout(path.parent).use_lock(SHA256)) if path.exists() else None
        self.found.append((model.environment, path.read_bytes() if path.exists() else None, free is None))
        return await super().load(model)


@pytest.fixture
def record(registry: Registry, tmp_path: Path) -> VersionRecord:
    """A version that is locked to one wheel, for two kinds of pods."""
    path = tmp_path / "aa-1.0-py3-none-any.whl"
    path.write_bytes(DATA)
    wheel = WheelRef(filename=path.name, sha256=SHA256, size_bytes=len(DATA))
    environments = tuple(
        EnvironmentLock(python=python, platform="linux-x86_64", wheels=(wheel,)) for python in ("3.11", "3.12")
    )
    return publish(registry, tmp_path, "needs", environments=environments, wheels={SHA256: path})


async def test_wheels_are_there_when_it_is_loaded(room: PoolRoom, record: VersionRecord, tmp_path: Path) -> None:
    """The server finds the wheels of the lock that is for it beside the archive, held until the load is done."""
    pool, server = room.pool(), Installing()
    pool.attach(server)
    await predict(pool, record)
    assert server.found == [(record.environments[0], DATA, True)]
    held = locks.try_exclusive(Layout(tmp_path / "store").use_lock(SHA256))
    assert held is not None  # installed by now: evicted when room is wanted


async def test_a_pod_of_another_kind_refuses_for_another_to_take(room: PoolRoom, record: VersionRecord) -> None:
    """Without a lock for what the pod is, the error says what there is and what to do, and nothing is fetched."""
    pool, server = room.pool(), Installing(info=ServerInfo("fake", environments_for="3.13/linux-x86_64"))
    pool.attach(server)
    with pytest.raises(
        Unavailable, match=r"locked for 3\.11/linux-x86_64, 3\.12/.*this pod is 3\.13.*--lock-for 3\.13/linux"
    ):
        await predict(pool, record)
    assert state(pool, record) == "absent"
    assert server.found == []


async def test_a_server_that_installs_nothing(room: PoolRoom, record: VersionRecord) -> None:
    """A model server that somebody else started has what it has: no wheel is fetched for it."""
    pool, server = room.pool(), Installing(info=ServerInfo("fake"))
    pool.attach(server)
    await predict(pool, record)
    assert server.found == [(None, None, True)]


async def test_a_wheel_that_the_registry_lost(room: PoolRoom, record: VersionRecord, registry: Registry) -> None:
    """The load fails as it does without the archive."""
    registry._store.delete(keys.wheel_key(SHA256))
    pool = room.pool()
    pool.attach(Installing())
    with pytest.raises(LoadFailed, match="the registry has no archive"):
        await predict(pool, record)
