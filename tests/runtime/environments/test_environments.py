"""Which versions are in which environment, and the fork servers that environments have."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from marway.environments.lock import EnvironmentLock
from marway.errors import InvalidReference
from marway.wire.environments import EnvironmentUse
from marway_runtime.environments.environments import Environments
from marway_runtime.environments.store import InUse
from marway_runtime.worker.overlay import find_overlay


class Store:
    """Builds nothing, and has an environment for every lock that requires something."""

    limit_bytes = 100
    installing = 7

    def __init__(self) -> None:
        self.asked: list[Collection[str]] = []
        self.closed = False

    def existing(self, lock: EnvironmentLock) -> str | None:
        return None

    async def built(self, use: EnvironmentUse, *, in_use: InUse) -> str | None:
        self.asked.append(in_use())
        await asyncio.sleep(0)
        return use.lock.requirements[0] if use.lock.requirements else None

    def path(self, name: str) -> Path:
        return Path("/environments") / name

    def sizes(self) -> dict[str, int]:
        return {"aa": 10, "bb": 20}

    def touch(self, name: str) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Forks:
    """A fork server that is ready at once."""

    pid = 8

    def __init__(self, socket: Path, overlay: Path) -> None:
        self.socket, self.overlay = socket, overlay
        self.runs = False

    async def run(self) -> None:
        self.runs = True
        try:
            await asyncio.Event().wait()
        finally:
            self.runs = False

    async def settled(self) -> None:
        while not self.runs:
            await asyncio.sleep(0)


def use(version: str, *requirements: str) -> EnvironmentUse:
    lock = EnvironmentLock(python="3.11", platform="linux-x86_64", requirements=requirements)
    return EnvironmentUse(name="needs", version=version, lock=lock)


@pytest.fixture
def made() -> list[Forks]:
    return []


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def environments(store: Store, made: list[Forks], tmp_path: Path) -> Environments:
    def forks(*, socket: Path, overlay: Path) -> Forks:
        made.append(Forks(socket, overlay))
        return made[-1]

    anything: Any = store
    return Environments(anything, tmp_path / "overlays", forks, tmp_path)


async def test_a_version_is_in_its_environment_while_it_is_loaded(environments: Environments, store: Store) -> None:
    """Its workers find it under both names that they may know, and the list says who is in it; then nothing does."""
    await environments.enter("mv_1", use("1", "aa"))
    manifest = {"model": {"modelName": "needs", "modelVersion": "1", "requirementsFile": "r"}}
    assert environments.overlay("mv_1") == Path("/environments/aa")
    assert find_overlay(manifest, str(environments.overlays)) == "/environments/aa"
    listed = environments.listed()
    assert [(each.digest, each.used_by) for each in listed.environments] == [("aa", ("mv_1",)), ("bb", ())]
    assert (listed.size_bytes, listed.limit_bytes) == (30, 100)
    await environments.enter("mv_2", use("2", "bb"))
    assert store.asked == [set(), {"aa"}]
    environments.leave("mv_1")
    environments.leave("mv_1")
    assert environments.overlay("mv_1") is None
    assert find_overlay(manifest, str(environments.overlays)) is None


async def test_a_version_that_needs_nothing_is_in_none(environments: Environments, made: list[Forks]) -> None:
    """Its workers are forked from the pod's own fork server."""
    await environments.enter("mv_1", use("1"))
    await environments.start_forks("mv_1")
    assert environments.overlay("mv_1") is None
    assert made == []


async def test_an_environment_has_one_fork_server(environments: Environments, made: list[Forks]) -> None:
    """It comes with the first version that is loaded, is there for the second, and ends with the last."""
    for name, version in (("mv_1", "1"), ("mv_2", "2")):
        await environments.enter(name, use(version, "aa"))
        await environments.start_forks(name)
    (forks,) = made
    assert forks.overlay == Path("/environments/aa")
    assert environments.fork_socket("mv_1") == environments.fork_socket("mv_2") == forks.socket
    assert environments.pids() == [8, 7]
    await environments.enter("mv_1", use("1", "aa"))  # loaded again
    environments.leave("mv_1")
    await asyncio.sleep(0)
    assert forks.runs
    await environments.clear()
    assert not forks.runs
    assert environments.fork_socket("mv_2") is None
    assert environments.pids() == [7]


async def test_a_version_that_moves(environments: Environments, made: list[Forks]) -> None:
    """Entered with another lock, it leaves the environment that it was in."""
    await environments.enter("mv_1", use("1", "aa"))
    await environments.start_forks("mv_1")
    await environments.enter("mv_1", use("1", "bb"))
    await environments.start_forks("mv_1")
    await environments.clear()
    assert [forks.overlay.name for forks in made] == ["aa", "bb"]
    assert not any(forks.runs for forks in made)


async def test_names_are_checked(environments: Environments, store: Store) -> None:
    """What cannot be a version's name is refused before anything is built, and the end lets go of the directory."""
    with pytest.raises(InvalidReference):
        await environments.enter("mv_1", use("1", "aa").model_copy(update={"name": "../x"}))
    assert store.asked == []
    await environments.aclose()
    assert store.closed
