"""How many versions a server may have at once: the least recently used goes, whatever memory there is."""

from __future__ import annotations

import asyncio

import pytest

from marway.errors import Unavailable
from marway.serving import ServingSettings
from marway_sidecar.backends.base import ServerInfo
from marway_sidecar.lifecycle import ModelPool
from support.fake_server import FakeServer
from support.pools import PoolRoom, predict, state
from support.registry import until


def there(pool: ModelPool) -> list[str]:
    return [each.name for each in pool.statuses() if each.state == "ready"]


async def test_the_least_recently_used_gives_its_place(room: PoolRoom) -> None:
    """Of three versions in two places the one used longest ago goes, with no limit of memory."""
    server = FakeServer(info=ServerInfo("fake", versions_max=2))
    pool = room.pool()
    pool.attach(server)
    versions = room.versions(3)
    for each in (versions[0], versions[1], versions[0], versions[2], versions[2]):
        await predict(pool, each)
    assert there(pool) == ["m0", "m2"]
    assert server.history == ["load m0", "load m1", "unload m1", "load m2"]
    await predict(pool, versions[1])
    assert there(pool) == ["m1", "m2"]


async def test_who_is_busy_is_waited_for(room: PoolRoom) -> None:
    """A version in use keeps its place until its answer is there."""
    server = FakeServer(info=ServerInfo("fake", versions_max=1), call_s=None)
    pool = room.pool()
    pool.attach(server)
    first, second = room.versions(2)
    busy = asyncio.create_task(predict(pool, first))
    await until(lambda: sum(held.in_flight for held in server.held.values()) == 1)
    waiting = asyncio.create_task(predict(pool, second))
    await until(lambda: state(pool, second) == "loading")
    assert server.history == ["load m0"]
    server.answer.set()
    assert await asyncio.gather(busy, waiting) == [first.id, second.id]
    assert there(pool) == ["m1"]


async def test_versions_that_stay_leave_no_place(room: PoolRoom) -> None:
    """Where all places have versions that are pinned, another is told at once to go elsewhere."""
    server = FakeServer(info=ServerInfo("fake", versions_max=1))
    pool = room.pool()
    pool.attach(server)
    first, second = room.versions(2)
    await predict(pool, first, ServingSettings(pinned=True))
    with pytest.raises(Unavailable, match=r"the places for versions \(1\) of this pod are taken by such that stay"):
        await predict(pool, second)
    await until(lambda: there(pool) == ["m0"])
