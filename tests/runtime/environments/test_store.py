"""Environments are built by the real uv, once, offline, and removed when room is wanted."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from marway.environments.lock import EnvironmentLock, WheelRef, this_target
from marway.errors import LoadFailed, Unavailable
from marway.wire.environments import EnvironmentUse, wheel_file
from marway_runtime.environments import installer as installing
from marway_runtime.environments.installer import Installer
from marway_runtime.environments.store import EnvironmentStore
from support.wheels import wheel

MIB = 1024 * 1024


class Room:
    """A model store with wheels, and a store of environments over it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "environments"
        self.wheels = directory / "store"
        self.wheels.mkdir()
        self.opened: list[EnvironmentStore] = []
        self.outcomes: list[str] = []

    def store(self, *, limit_bytes: int = 1024 * MIB, timeout_s: float = 60) -> EnvironmentStore:
        """Return a store of this room, as a runtime that was started again has it."""
        for store in self.opened:
            store.close()
        installer = Installer(self.directory, timeout_s=timeout_s)
        store = EnvironmentStore(
            self.root,
            self.wheels,
            installer,
            limit_bytes=limit_bytes,
            observe=lambda outcome, seconds: self.outcomes.append(outcome),
        )
        self.opened.append(store)
        return store

    def use(self, name: str, source: str = "X = 1\n", **damage: bytes) -> EnvironmentUse:
        """Return a version that requires one package, whose wheel is in the model store."""
        path = wheel(self.directory / "made", name, "1.0", source)
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        (self.wheels / wheel_file(sha256)).write_bytes(damage.get("data", data))
        locked = WheelRef(filename=path.name, sha256=sha256, size_bytes=len(data))
        target = this_target()
        lock = EnvironmentLock(python=target.python, platform=target.platform, requirements=(name,), wheels=(locked,))
        return EnvironmentUse(name="needs", version="1.0", lock=lock)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    for store in made.opened:
        store.close()


async def test_an_environment_is_built_once(room: Room) -> None:
    """It holds the package with its bytecode, is the same for all versions with that lock, and outlives its runtime."""
    store, use = room.store(), room.use("marway-one", "X = 'one'\n")
    first, second = await asyncio.gather(store.built(use, in_use=tuple), store.built(use, in_use=tuple))
    assert first == second
    assert first is not None
    path = store.path(first)
    said = subprocess.run(
        [sys.executable, "-c", "import marway_one; print(marway_one.X)"], env={"PYTHONPATH": str(path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "one\n"
    assert list(path.glob("__pycache__/marway_one*.pyc"))
    assert not list(room.root.glob(".build*"))
    shutil.rmtree(room.wheels)  # not needed again
    again = room.store()
    assert await again.built(use, in_use=tuple) == first
    assert again.sizes().keys() == {first}
    assert again.sizes()[first] > 100
    assert room.outcomes == ["ok"]


async def test_nothing_is_built_that_is_there(room: Room) -> None:
    """A version whose requirements this Python satisfies gets no environment."""
    use = room.use("numpy")
    assert await room.store().built(use, in_use=tuple) is None


async def test_fault_no_room_for_an_environment(room: Room) -> None:
    """Room is made by what was used longest ago and nobody is in; with no room at all, the load is refused."""
    uses = [room.use(f"marway-p{number}", f"X = '{'x' * 10000}'\n") for number in range(4)]
    store = room.store(limit_bytes=60_000)
    built = []
    for number, use in enumerate(uses[:2]):
        name = await store.built(use, in_use=tuple)
        assert name is not None
        os.utime(store.path(name), (number, number))
        built.append(name)
    assert await store.built(uses[0], in_use=tuple) == built[0]  # now the newest
    third = await store.built(uses[2], in_use=tuple)
    assert set(store.sizes()) == {built[0], third}
    assert not store.path(built[1]).exists()
    with pytest.raises(Unavailable, match=r"needs 1 MiB in .*environments, 1 more than there is: .*environments_bytes"):
        await store.built(uses[3], in_use=store.sizes)
    assert set(store.sizes()) == {built[0], third}
    assert room.outcomes == ["ok", "ok", "ok", "no_room"]


async def test_fault_an_environment_that_cannot_be_installed(room: Room) -> None:
    """A wheel with other bytes than its digest says is not installed, and nothing of it stays."""
    store = room.store()
    other = wheel(room.directory / "other", "marway-bad", "1.0", "X = 2\n").read_bytes()
    use = room.use("marway-bad", data=other)
    with pytest.raises(
        LoadFailed, match=r"needs 1\.0 cannot be loaded: .*it said last: .*Hash mismatch for `marway-bad"
    ):
        await store.built(use, in_use=tuple)
    assert store.sizes() == {}
    assert not list(room.root.glob(".build*"))
    assert room.outcomes == ["failed"]


async def test_fault_an_installation_that_hangs(room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What takes too long is ended with all that it started, and its last lines are told."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho unpacking\necho still at it\nsleep 60 &\necho $! > $0.pid\nwait\n")
    slow.chmod(0o755)
    monkeypatch.setattr(installing, "_uv", lambda: str(slow))
    store = room.store(timeout_s=0.5)
    began = time.monotonic()
    with pytest.raises(LoadFailed, match=r"not within 0\.5 s \(environment_timeout_s\); .*unpacking / still at it"):
        await store.built(room.use("marway-slow"), in_use=tuple)
    assert time.monotonic() - began < 10
    sleeper = int(Path(f"{slow}.pid").read_text())
    while Path(f"/proc/{sleeper}").exists() and "Z" not in Path(f"/proc/{sleeper}/stat").read_text().split()[2]:
        await asyncio.sleep(0.01)
    assert store.installing is None


async def test_after_the_machine_was_started_again(room: Room) -> None:
    """Environments from before are removed: they were never synced to the disk. So is what was half built."""
    store = room.store()
    name = await store.built(room.use("marway-one"), in_use=tuple)
    assert name is not None
    (room.root / ".build-left").mkdir()
    (room.root / "machine").write_text("another start")
    again = room.store()
    other = await again.built(room.use("marway-two"), in_use=tuple)
    assert list(again.sizes()) == [other]
    assert sorted(path.name for path in room.root.iterdir()) == sorted([other or "", "lock", "machine"])


async def test_one_runtime_at_a_time(room: Room) -> None:
    """Two runtimes would remove one another's environments: the second is told to have a directory of its own."""
    await room.store().built(room.use("marway-one"), in_use=tuple)
    second = EnvironmentStore(
        room.root, room.wheels, Installer(room.directory, timeout_s=5), limit_bytes=MIB, observe=print
    )
    with pytest.raises(LoadFailed, match="another runtime has its environments in"):
        await second.built(room.use("marway-one"), in_use=tuple)


async def test_a_lock_for_another_python(room: Room) -> None:
    """It is refused with both targets."""
    use = room.use("marway-one")
    other = use.model_copy(update={"lock": use.lock.model_copy(update={"python": "3.99"})})
    with pytest.raises(LoadFailed, match=r"locked for 3\.99/.*, this is 3\."):
        await room.store().built(other, in_use=tuple)
