"""Who goes when a container's memory is nearly used up."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from marway.process.cgroups import Room
from marway_runtime.workers import MemoryGuard, Worker
from support.registry import until

MIB = 1 << 20


async def test_what_is_parked_goes_before_any_worker(tmp_path: Path) -> None:
    """While a version is parked its weights are given up for the container's sake, one version a second, and no worker
    is looked at."""
    (tmp_path / "memory.current").write_text(str(1000 * MIB))
    (tmp_path / "memory.stat").write_text("active_file 0\n")
    given_up, killed = [], []

    def give_up() -> bool:
        given_up.append("weights")
        (tmp_path / "memory.current").write_text(str(500 * MIB))
        return True

    def find() -> list[Worker]:
        return [Worker(2**22 + 1, "forked")]  # no process has this pid

    guard = MemoryGuard(
        find,
        limit_bytes=1 << 40,
        room=Room(tmp_path, v2=True, limit_bytes=1024 * MIB),
        died=killed.append,
        give_up=give_up,
    )
    watching = asyncio.create_task(guard.run())
    await until(lambda: given_up == ["weights"])
    await asyncio.sleep(0.2)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert given_up == ["weights"]
    assert killed == []
