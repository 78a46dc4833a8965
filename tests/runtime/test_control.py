"""`runtime.sock` in a directory of any depth, for the owner alone, whatever was left there."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway.environments.lock import EnvironmentLock
from marway.errors import LoadFailed, MarwayError, Unavailable
from marway.wire.environments import EnvironmentList, EnvironmentState, EnvironmentUse
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorker, RuntimeWorkers, TemporaryRoom, short_path
from marway_runtime.control import served
from marway_runtime.directories import prepare, remove, remove_leftovers
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.runtime import RuntimeClient

USE = EnvironmentUse(
    name="m", version="1", lock=EnvironmentLock(python="3.11", platform="linux-x86_64", requirements=("aa",))
)
LISTED = EnvironmentList(environments=(EnvironmentState(digest="d", size_bytes=7, used_by=("mv",)),), size_bytes=7)


class StubEnvironments:
    """Builds what it is asked for, or says that it cannot."""

    def __init__(self) -> None:
        self.entered: dict[str, EnvironmentUse] = {}
        self.failure: MarwayError | None = None

    def listed(self) -> EnvironmentList:
        return LISTED

    async def enter(self, server_name: str, use: EnvironmentUse) -> None:
        if self.failure is not None:
            raise self.failure
        self.entered[server_name] = use

    def leave(self, server_name: str) -> None:
        del self.entered[server_name]


class Stub:
    """Stands in for a runtime: what is shown here is the socket."""

    app = None

    def __init__(self) -> None:
        self.restarts = 0
        self.environments: Any = StubEnvironments()

    def workers(self) -> RuntimeWorkers:
        worker = RuntimeWorker(pid=1, server_name="m", mode="plain", reason="because", private_bytes=2)
        return RuntimeWorkers(workers=(worker,), base_bytes=3)

    def metrics(self) -> bytes:
        return b"marway_runtime_up 1\n"

    def remove_leftovers(self) -> TemporaryRoom:
        return TemporaryRoom(directory="/t", free_bytes=4, removed=5)

    def restart(self) -> None:
        self.restarts += 1


@pytest.mark.parametrize("depth", [0, 4], ids=["short", "longer-than-a-socket-path"])
async def test_the_socket_answers_at_any_depth(tmp_path: Path, depth: int) -> None:
    """Workers, metrics and restart are served on a socket of mode 0600 that is gone afterwards, over a stale one."""
    directory = tmp_path.joinpath(*["a folder with a long name of its own"] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RUNTIME_SOCKET
    with socket.socket(socket.AF_UNIX) as stale, short_path(path) as short:
        stale.bind(short)
    stub = Stub()
    async with served(directory, stub):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with short_path(path) as short:
            async with httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=short), base_url="http://runtime"
            ) as client:
                answer = await client.get("/workers")
                assert RuntimeWorkers.model_validate_json(answer.content) == stub.workers()
                assert (await client.get("/metrics")).content == stub.metrics()
                answer = await client.delete("/leftovers")
                assert TemporaryRoom.model_validate_json(answer.content) == stub.remove_leftovers()
                assert (await client.post("/restart")).status_code == 202
                assert (await client.get("/elsewhere")).status_code == 404
    assert stub.restarts == 1
    assert list(directory.iterdir()) == []


def test_leftovers_are_what_was_not_unpacked_whole(tmp_path: Path) -> None:
    """Archives that TorchServe left half unpacked are removed; those that it has, and all else, stay."""
    directories = prepare(tmp_path)
    half, whole = directories.temporary / "models123.download", directories.temporary / "models" / "0a1b"
    for folder in (half, whole):
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(b"x")
    room = remove_leftovers(directories)
    assert (room.removed, room.directory) == (1, str(directories.temporary))
    assert room.free_bytes > 0
    assert not half.exists()
    assert (whole / "weights.bin").exists()
    assert remove_leftovers(directories).removed == 0
    remove(directories)


def test_debris_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """A start removes what a killed runtime left, keeps logs, and never follows a link that is not its own."""
    first = prepare(tmp_path)
    (first.temporary / ".ts.sock.9000").touch()
    (first.work / "key_file.json").touch()
    (first.logs / "models.log").write_text("kept")
    for name in ("runtime.json", ".runtime.json-x", RUNTIME_SOCKET):
        (tmp_path / name).touch()
    second = prepare(tmp_path)
    assert not first.short.exists()
    assert list(second.work.iterdir()) == list(second.temporary.iterdir()) == []
    assert (second.logs / "models.log").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "tmp", "work"]
    assert stat.S_IMODE(second.short.stat().st_mode) == 0o700
    remove(second)
    assert not second.short.exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "tmp").symlink_to(precious)
    remove(prepare(tmp_path))
    assert precious.exists()


def served_model(lock: EnvironmentLock | None) -> ServedModel:
    return ServedModel("mv", "m", "1", Path("m.mar"), 1, 1.0, 1.0, environment=lock)


async def test_environments_are_asked_for_over_it(tmp_path: Path) -> None:
    """A sidecar has one built before a load and says when it is left; a version without a lock asks for nothing."""
    stub = Stub()
    async with served(tmp_path, stub):
        client = RuntimeClient(tmp_path, timeout_s=5)
        await client.enter_environment(served_model(None))
        await client.enter_environment(served_model(USE.lock))
        assert stub.environments.entered == {"mv": USE}
        assert client.document(await client.request("GET", "/environments"), EnvironmentList) == LISTED
        await client.leave_environment(served_model(None))  # as a sidecar says it that found the version there
        assert stub.environments.entered == {}
        await client.leave_environment(served_model(USE.lock))
        assert (await client.request("PUT", "/environments/mv", LISTED)).status_code == 400
        await client.aclose()


@pytest.mark.parametrize("failure", [LoadFailed("it cannot be built"), Unavailable("there is no room")])
async def test_why_there_is_no_environment_comes_over_it(tmp_path: Path, failure: MarwayError) -> None:
    """The sidecar raises what the runtime raised, with the version's name."""
    stub = Stub()
    stub.environments.failure = failure
    async with served(tmp_path, stub):
        client = RuntimeClient(tmp_path, timeout_s=5)
        with pytest.raises(type(failure), match=failure.message) as caught:
            await client.enter_environment(served_model(USE.lock))
        assert caught.value.model == "m"
        await client.aclose()
