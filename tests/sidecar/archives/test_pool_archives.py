"""The pool and the disk: what is registered keeps its archive, and a fetch outlives who waits for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from marway.archive_store import ArchiveStore, ArchiveUse
from marway.deadline import Deadline
from marway.errors import ModelLoading, Unavailable
from marway.records import ArchiveRef
from marway.serving import ServingSettings
from support.fake_server import FakeServer
from support.pools import PoolRoom, predict, state

pytestmark = pytest.mark.timeout(60)


class HeldUp(ArchiveStore):
    """A store whose fetches wait until they may go on."""

    go = threading.Event()
    uses = 0

    def use(self, archive: ArchiveRef, **options: Any) -> ArchiveUse:
        type(self).uses += 1
        assert self.go.wait(30)
        return super().use(archive, **options)


def on_disk(directory: Path) -> int:
    """Return how many whole archives the store has."""
    return len(list((directory / "store").rglob("*.mar")))


async def test_what_is_loaded_keeps_its_archive(room: PoolRoom, tmp_path: Path) -> None:
    """An archive leaves a full disk once its version is unloaded, and not before: the server reads it until then."""
    one, other = room.versions(2)
    pool = room.pool(archives=room.archives(limit_bytes=one.archive.size_bytes + other.archive.size_bytes // 2))
    pool.attach(FakeServer())
    await predict(pool, one)
    with pytest.raises(Unavailable, match="room"):
        await predict(pool, other)
    await predict(pool, one)
    await pool.unload(one.id, Deadline.after(30))
    await predict(pool, other)
    assert on_disk(tmp_path) == 1


async def test_a_fetch_goes_on_without_who_waited(room: PoolRoom) -> None:
    """A load that gave its fetch up leaves it running, and the next load joins it."""
    (record,) = room.versions(1)
    HeldUp.go.clear()
    HeldUp.uses = 0
    pool = room.pool(archives=room.archives(HeldUp), fetch_timeout_s=0.05)
    pool.attach(FakeServer())
    for _ in range(2):
        with pytest.raises(Unavailable, match="the fetch goes on"):
            await pool.load(record, ServingSettings(), Deadline.after(30))
    HeldUp.go.set()

    async def loaded() -> bool:
        try:
            await pool.load(record, ServingSettings(), Deadline.after(30))
        except (Unavailable, ModelLoading):
            return False
        return True

    while not await loaded():
        pass
    assert HeldUp.uses <= 2  # the first of all; one more if that ended while nobody waited
    assert state(pool, record) == "ready"
