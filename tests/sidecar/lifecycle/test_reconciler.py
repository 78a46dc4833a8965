"""What the pool thinks is loaded and what the server has are brought together."""

from __future__ import annotations

import asyncio

from marway.deadline import Deadline
from marway_sidecar.metrics import SidecarMetrics
from support.fake_server import FakeServer
from support.pools import PoolRoom, predict, state
from support.registry import until


async def test_what_another_sidecar_left_is_unregistered(room: PoolRoom) -> None:
    """Versions that a killed sidecar left in the server are unregistered under the version that they have."""
    pool, server = room.pool(), FakeServer()
    for name in ("mv_A", "mv_B"):
        server.leave_behind(name)
    pool.attach(server)
    await until(lambda: not server.held)
    assert server.violations == []
    assert pool.statuses() == ()


async def test_a_wanted_version_that_was_left_is_taken_over(room: PoolRoom) -> None:
    """A version left in the server that a request wants is loaded again, or taken over, and answers; never both."""
    pool, server = room.pool(), FakeServer()
    versions = room.versions(5)
    for version in versions:
        server.leave_behind(version.id)
        server.held[version.id].version = version.version
    pool.attach(server)
    answers = await asyncio.gather(*[predict(pool, version) for version in versions[:3]])
    assert answers == [version.id for version in versions[:3]]
    await until(lambda: set(server.held) == {version.id for version in versions[:3]})
    assert server.violations == []
    assert [state(pool, version) for version in versions[:3]] == ["ready"] * 3


async def test_what_the_server_lost_counts_as_absent(room: PoolRoom, metrics: SidecarMetrics) -> None:
    """A version that the server no longer has is noticed without a request, and its memory is free again."""
    pool, server = room.pool(metrics), FakeServer()
    (version,) = room.versions(1)
    pool.attach(server)
    await predict(pool, version)
    labels = {"model": "m0", "version": "1.0", "mode": "forked"}
    sample = metrics.registry.get_sample_value
    await until(lambda: sample("marway_sidecar_workers", labels) == 1)
    assert sample("marway_runtime_workers", {"mode": "forked", "reason": ""}) == 1
    server.lose(version.id)
    await until(lambda: state(pool, version) == "absent")
    assert pool.memory()[0] == 0
    await until(lambda: sample("marway_sidecar_workers", labels) is None)
    assert await predict(pool, version) == version.id


async def test_a_version_loaded_meanwhile_is_not_taken_for_a_stranger(room: PoolRoom) -> None:
    """Loads and unloads without pause, with looks between them, never lose a version that is in use."""
    pool, server = room.pool(survey_interval_s=0.01), FakeServer(load_s=0.001)
    versions = room.versions(8)
    pool.attach(server)
    for _ in range(10):
        answers = await asyncio.gather(*[predict(pool, version) for version in versions])
        assert answers == [version.id for version in versions]
        await asyncio.gather(*[pool.unload(version.id, Deadline.after(30)) for version in versions[::2]])
    assert server.violations == []
    assert server.loads == 8 + 9 * 4
