"""The native engine's changes to one version."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from marway_runtime.directories import Directories
from marway_runtime.engines.native.engine import NativeEngine
from marway_runtime.environments.environments import open_environments
from marway_runtime.metrics import Deaths, RuntimeMetrics
from marway_runtime.settings import RuntimeSettings


async def test_changes_of_a_version_never_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes when one change has just ended, and another that waited for it has begun, waits for that one."""
    settings = RuntimeSettings(flags={"runtime_dir": tmp_path / "run", "model_store": tmp_path / "store"})  # type: ignore[call-arg]
    directories = Directories(tmp_path / "run", tmp_path / "short")
    engine = NativeEngine(
        settings,
        directories,
        home=tmp_path,
        fork_socket=None,
        deaths=Deaths(RuntimeMetrics()),
        environments=open_environments(settings, directories, None),
    )
    turns: asyncio.Queue[asyncio.Event] = asyncio.Queue()
    inside = []

    async def removed(server_name: str) -> None:
        inside.append(server_name)
        assert inside == [server_name]
        turn = asyncio.Event()
        turns.put_nowait(turn)
        await turn.wait()
        inside.remove(server_name)

    monkeypatch.setattr(engine, "_remove", removed)
    first, second = (asyncio.create_task(engine.unload("m")) for _ in range(2))
    (await turns.get()).set()
    await first
    second_turn = await turns.get()
    third = asyncio.create_task(engine.unload("m"))
    await asyncio.sleep(0)
    assert turns.empty()  # it waits for the second
    assert not third.done()
    second_turn.set()
    (await turns.get()).set()
    await asyncio.gather(second, third)
