"""The archive store in the rows of the fault matrix that name it: each test is named after its row."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, get_args

import pytest

from marway.archive_store import ArchiveStore, download
from marway.errors import ArchiveCorrupt, RegistryUnavailable, Unavailable
from marway.objects import open_store
from marway.objects.s3 import retries as backoff
from marway.records import ArchiveRef, VersionRecord
from marway.registry import Registry
from support import killed_fetch
from support.archives import MIB, Observed, fetched, names, published
from support.every import LONG
from support.fetching import FILLER, IN_TMPFS, Wish, fetching
from support.lossy_proxy import LossyProxy, lossy_proxy
from support.power import Cut, ForgetsFiles, RecordingFiles, after_cut
from support.seaweed import S3Server

LARGE = 8 * MIB + 12345
"""With parts of 1 MiB: nine of them, fetched in parallel."""

MakeStore = Callable[..., ArchiveStore]


@pytest.fixture
def seen() -> Observed:
    return Observed()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts."""
    monkeypatch.setattr(backoff.random, "uniform", lambda low, high: 0.0)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives of 1 MiB and more come in parts of that size."""
    monkeypatch.setattr(download, "PARALLEL_FROM_BYTES", MIB)
    monkeypatch.setattr(download, "_PART_BYTES", MIB)


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyProxy]:
    """A proxy before the S3 server, which the environment names as the endpoint."""
    with lossy_proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.endpoint)
        yield running


@pytest.fixture
def remote(s3_url: str, proxy: LossyProxy) -> Registry:
    """A registry in S3, behind the proxy."""
    return Registry(open_store(s3_url))


@pytest.fixture
def large(remote: Registry, tmp_path: Path, proxy: LossyProxy) -> VersionRecord:
    """A version in S3 whose archive has several parts; the proxy has forgotten how it came there."""
    record = published(remote, tmp_path, "large", LARGE)
    proxy.requests.clear()
    return record


@pytest.fixture
def remote_store(root: Path, remote: Registry, seen: Observed) -> ArchiveStore:
    return ArchiveStore(root, remote, observe=seen)


def stored(record: VersionRecord) -> str:
    return f"{record.archive.sha256}.mar"


def whole(path: Path, record: VersionRecord) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == record.archive.sha256


def gets(proxy: LossyProxy) -> int:
    return sum(request.startswith("GET") for request in proxy.requests)


def wish(root: Path, registry: str, record: VersionRecord, **more: object) -> Wish:
    return Wish(str(root), registry, record.archive.sha256, record.archive.size_bytes, **more)  # type: ignore[arg-type]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("parts")
def test_large_archives_come_in_parts(
    root: Path, remote_store: ArchiveStore, large: VersionRecord, proxy: LossyProxy, seen: Observed
) -> None:
    """A large archive is fetched by one request for each part and no other, and is whole."""
    assert whole(fetched(remote_store, large.archive), large)
    assert proxy.requests == [request for request in proxy.requests if request.startswith("GET")]
    assert gets(proxy) == 9
    assert seen == ["ok"]


def test_small_archives_come_in_one_request(
    root: Path, remote_store: ArchiveStore, large: VersionRecord, proxy: LossyProxy
) -> None:
    """An archive below 64 MiB is one request."""
    assert whole(fetched(remote_store, large.archive), large)
    assert len(proxy.requests) == 1


def test_fault_duplicate_load(root: Path, s3_url: str, large: VersionRecord, proxy: LossyProxy) -> None:
    """Four processes that want one archive at the same moment make one download of it, and all have it."""
    with ExitStack() as stack:
        processes = [stack.enter_context(fetching(wish(root, s3_url, large, hold=True))) for _ in range(4)]
        for process in processes:
            assert process.line() == {"at": "hold"}
        said = [process.end() for process in processes]
    assert [each["error"] for each in said] == [None] * 4
    outcomes = [outcome for each in said for outcome in each["outcomes"]]
    assert outcomes.count("ok") == 1
    assert set(outcomes) <= {"ok", "shared"}
    assert gets(proxy) == 1
    assert names(root) == [stored(large)]


@pytest.mark.parametrize("kind", ["directory", "s3"])
@pytest.mark.timeout(600)
def test_fault_sidecar_dies_mid_download(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Kill -9 at any point of a fetch leaves nothing half-visible, and the next fetch succeeds and cleans up."""
    url = request.getfixturevalue("s3_url") if kind == "s3" else (tmp_path / "registry").as_uri()
    tries = 100 if LONG else (30 if kind == "directory" else 8)
    done = subprocess.run(
        [sys.executable, killed_fetch.__file__, url, str(tmp_path / "stores"), "--tries", str(tries)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert len(found["tried"]) >= min(tries, found["points"])


def visible_after_cuts(tmp_path: Path, root: Path, registry: Registry, files: RecordingFiles) -> list[bool]:
    """Fetch an archive, cut the power after each change of the disk, and return for what is visible if it is whole."""
    record = published(registry, tmp_path, "some", 200_000)
    fetched(ArchiveStore(root, registry, observe=lambda *_: None, files=files), record.archive)
    found = []
    for count in range(len(files.changes) + 1):
        for cut in get_args(Cut):
            into = tmp_path / "cut" / f"{count}-{cut}"
            path = after_cut(files.changes, root, count=count, cut=cut, seed=count, into=into) / stored(record)
            if path.exists():
                found.append(whole(path, record))
    return found


def test_power_cuts_leave_nothing_half_visible(tmp_path: Path, root: Path, registry: Registry) -> None:
    """Wherever in a fetch the power goes, and whatever the disk keeps of the rest, what is visible is whole."""
    found = visible_after_cuts(tmp_path, root, registry, RecordingFiles())
    assert found
    assert all(found)


def test_power_cuts_find_a_missing_fsync(tmp_path: Path, root: Path, registry: Registry) -> None:
    """A store that forgot to fsync its files would be found out."""
    assert not all(visible_after_cuts(tmp_path, root, registry, ForgetsFiles()))


@pytest.mark.parametrize("where", ["bytes", "rename"])
@pytest.mark.parametrize("streams", [1, 4])
def test_fault_lock_holder_dies(
    root: Path, s3_url: str, remote_store: ArchiveStore, large: VersionRecord, seen: Observed, where: str, streams: int
) -> None:
    """When a downloader dies, wherever that is, the next one fetches the archive, and what it left is removed."""
    with fetching(stopping(root, s3_url, large, "SIGKILL", where, streams)) as process:
        assert process.line() == {"at": "signal"}
        assert process.process.wait(30) == -signal.SIGKILL
        assert whole(fetched(remote_store, large.archive), large)
    assert seen == ["ok"]
    remote_store.clean()
    assert names(root) == [stored(large)]


@pytest.mark.parametrize("where", ["bytes", "rename"])
@pytest.mark.parametrize("streams", [1, 4])
def test_fault_lock_holder_stops(
    root: Path, s3_url: str, remote: Registry, large: VersionRecord, seen: Observed, where: str, streams: int
) -> None:
    """When a downloader stops, who waits takes over; the one that was stopped then changes nothing, and shares."""
    with fetching(stopping(root, s3_url, large, "SIGSTOP", where, streams)) as process:
        assert process.line() == {"at": "signal"}
        store = ArchiveStore(root, remote, observe=seen, stuck_after_s=0.5)
        with store.use(large.archive) as used:
            assert whole(used.path, large)
            identity = used.path.stat().st_ino
            process.process.send_signal(signal.SIGCONT)
            said = process.end()
            assert (said["error"], said["outcomes"]) == (None, ["shared"])
            assert used.path.stat().st_ino == identity
    assert seen == ["ok"]
    assert names(root) == [stored(large)]


def stopping(root: Path, url: str, record: VersionRecord, how: str, where: str, streams: int) -> Wish:
    at = {"after_bytes": 2 * MIB} if where == "bytes" else {"before": "rename"}
    return wish(root, url, record, signal=how, parallel_from_bytes=MIB, options={"streams": streams}, **at)


def test_fault_lock_holder_dies_while_waited_for(
    tmp_path: Path, root: Path, registry: Registry, seen: Observed
) -> None:
    """A downloader's death is noticed by the kernel: who waits goes on at once, not after the time for stopped ones."""
    record = published(registry, tmp_path, "large", LARGE)
    at = wish(root, (tmp_path / "registry").as_uri(), record, signal="SIGSTOP", after_bytes=MIB)
    with fetching(at) as process:
        process.line()
        store = ArchiveStore(root, registry, observe=seen, stuck_after_s=3600)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(fetched, store, record.archive)
            wait_until(lambda: len(names(root)) == 2)
            process.process.kill()
            assert whole(waiting.result(60), record)
    assert seen == ["ok"]


def test_a_slow_download_keeps_its_turn(tmp_path: Path, root: Path, registry: Registry) -> None:
    """A downloader that makes progress, however slow, is not taken for stopped though it takes much longer."""
    record = published(registry, tmp_path, "large", 16 * MIB)
    slowly = SlowRegistry(registry, pause_s=0.2)
    outcomes = Observed(), Observed()
    first = ArchiveStore(root, slowly, observe=outcomes[0], stuck_after_s=1.0)  # type: ignore[arg-type]
    second = ArchiveStore(root, registry, observe=outcomes[1], stuck_after_s=1.0)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(fetched, first, record.archive)
        wait_until(slowly.begun.is_set)
        two = pool.submit(fetched, second, record.archive)
        assert one.result(60) == two.result(60)
    assert outcomes == (["ok"], ["shared"])


class SlowReader(io.RawIOBase):
    """Reads with a pause before each piece, as over a thin line."""

    def __init__(self, file: BinaryIO, pause_s: float) -> None:
        super().__init__()
        self._file = file
        self._pause_s = pause_s

    def read(self, count: int = -1) -> bytes:
        time.sleep(self._pause_s)
        return self._file.read(count)


class SlowRegistry:
    """A registry over a thin line."""

    parallel_reads = False

    def __init__(self, registry: Registry, *, pause_s: float) -> None:
        self._registry = registry
        self._pause_s = pause_s
        self.begun = threading.Event()

    @contextmanager
    def open_archive(self, archive: ArchiveRef, *, start: int = 0, length: int | None = None) -> Iterator[SlowReader]:
        with self._registry.open_archive(archive, start=start, length=length) as file:
            self.begun.set()
            yield SlowReader(file, self._pause_s)


def in_tmpfs(root: Path, size: str) -> tuple[list[str], dict[str, str]]:
    """Return what starts a process with a small disk of its own at ``root``; skips where that is not permitted."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_TMPFS, "sh"]
    env = {"ROOT": str(root), "SIZE": size}
    root.mkdir()
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], env={**os.environ, **env}).returncode:
        pytest.skip("this machine permits no mount name spaces")
    return prefix, env


def test_fault_disk_full(tmp_path: Path, root: Path, registry: Registry) -> None:
    """On a full disk the load fails with a clear error and leaves nothing behind, whether it is foreseen or not."""
    prefix, env = in_tmpfs(root, "4m")
    record = published(registry, tmp_path, "large", LARGE)
    url = (tmp_path / "registry").as_uri()
    with fetching(wish(root, url, record), prefix=prefix, env=env) as process:
        said = process.end()
    assert said["error"].startswith("Unavailable: no room for an archive")
    assert (said["outcomes"], said["names"]) == (["no_space"], [])


def test_fault_disk_full_while_writing(tmp_path: Path, root: Path, registry: Registry) -> None:
    """A disk that others fill while an archive is written fails that load alone, and what was written is gone."""
    prefix, env = in_tmpfs(root, "4m")
    record = published(registry, tmp_path, "large", 3 * MIB)
    url = (tmp_path / "registry").as_uri()
    with fetching(wish(root, url, record, fill=True), prefix=prefix, env=env) as process:
        said = process.end()
    assert said["error"].startswith("Unavailable: cannot store an archive")
    assert "No space left" in said["error"]
    assert (said["outcomes"], said["names"]) == (["no_space"], [FILLER])


def test_fault_read_only_store(tmp_path: Path, root: Path, registry: Registry, seen: Observed) -> None:
    """In a store that cannot be written, what is there is served and what is not fails with a clear error."""
    there, absent = published(registry, tmp_path, "there"), published(registry, tmp_path, "absent")
    ArchiveStore(root, registry, observe=seen).use(there.archive).close()
    bind = 'mount --bind "$ROOT" "$ROOT" && mount -o remount,ro,bind "$ROOT" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", bind, "sh"]
    env = {"ROOT": str(root)}
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], env={**os.environ, **env}).returncode:
        pytest.skip("this machine permits no mount name spaces")
    url = (tmp_path / "registry").as_uri()
    with fetching(wish(root, url, there, hold=True), prefix=prefix, env=env) as process:
        assert process.line() == {"at": "hold"}
        tight = ArchiveStore(root, registry, observe=seen, limit_bytes=1500)
        with pytest.raises(Unavailable, match="in use"):
            fetched(tight, absent.archive)  # even a pod that cannot write counts as a user
        assert process.end()["error"] is None
    with fetching(wish(root, url, absent), prefix=prefix, env=env) as process:
        said = process.end()
    assert said["error"].startswith("Unavailable: cannot store an archive")
    assert "Read-only file system" in said["error"]
    assert (said["outcomes"], said["names"]) == (["no_space"], [stored(there)])


def object_of(tmp_path: Path, record: VersionRecord) -> Path:
    path = tmp_path / "registry" / "archives" / "sha256" / stored(record)
    path.chmod(0o644)
    return path


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied"])
@pytest.mark.parametrize("kind", ["directory", "s3"])
@pytest.mark.usefixtures("parts")
def test_fault_corrupt_archive(
    tmp_path: Path, root: Path, seen: Observed, kind: str, damage: str, request: pytest.FixtureRequest
) -> None:
    """What the registry sends in an archive's place is quarantined with the reason, is never seen, and never loaded."""
    if kind == "s3":
        url = request.getfixturevalue("s3_url")
        s3: S3Server = request.getfixturevalue("s3")
    else:
        url = (tmp_path / "registry").as_uri()
    registry = Registry(open_store(url))
    record = published(registry, tmp_path, "large", LARGE)
    data = bytearray((tmp_path / f"{record.archive.sha256}.mar").read_bytes())
    data[LARGE // 2] ^= 1
    bad = bytes({"flipped": data, "truncated": data[: 5 * MIB // 2], "emptied": b""}[damage])
    if kind == "s3":
        key = f"{url.removeprefix(f's3://{s3.bucket}/')}/archives/sha256/{stored(record)}"
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=bad)
    else:
        object_of(tmp_path, record).write_bytes(bad)
    store = ArchiveStore(root, registry, observe=seen)
    with pytest.raises(ArchiveCorrupt, match="publish the version again"):
        fetched(store, record.archive)
    assert seen == ["corrupt"]
    assert names(root) == ["quarantine"]
    assert (root / "quarantine" / stored(record)).stat().st_size == len(bad)
    reason = json.loads((root / "quarantine" / f"{record.archive.sha256}.json").read_text())
    assert (reason["size_bytes"], reason["expected_size_bytes"]) == (len(bad), LARGE)


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_fault_corrupt_archive_on_disk(
    tmp_path: Path, root: Path, registry: Registry, seen: Observed, damage: str
) -> None:
    """An archive that was damaged in the store is quarantined and fetched again, before it is given to anybody."""
    record = published(registry, tmp_path, "large", LARGE)
    path = fetched(ArchiveStore(root, registry, observe=seen), record.archive)
    if damage == "flipped":
        flip(path)
    else:
        os.truncate(path, LARGE // 2)
    store = ArchiveStore(root, registry, observe=seen)
    assert whole(fetched(store, record.archive), record)
    assert seen == ["ok", "corrupt", "ok"]
    assert (root / "quarantine" / stored(record)).exists()
    about = path.stat()
    flip(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # as a disk that forgets leaves it
    assert whole(fetched(ArchiveStore(root, registry, observe=seen), record.archive), record)  # after a restart
    assert seen == ["ok", "corrupt", "ok", "corrupt", "ok"]


@pytest.mark.usefixtures("parts", "quick")
@pytest.mark.parametrize("streams", [1, 4])
def test_fault_truncated_archive(
    root: Path, remote: Registry, large: VersionRecord, proxy: LossyProxy, seen: Observed, streams: int
) -> None:
    """A stream that is cut goes on where it was, several times over, and the archive is whole."""
    cuts = 0

    def cut(method: str, path: str) -> bool:
        nonlocal cuts
        if method == "GET" and cuts < 4:
            cuts += 1
            proxy.cut_after = 300_000
        return False

    proxy.lose = cut
    store = ArchiveStore(root, remote, observe=seen, streams=streams)
    assert whole(fetched(store, large.archive), large)
    assert cuts == 4
    assert gets(proxy) == (1 if streams == 1 else 9) + cuts
    assert seen == ["ok"]


@pytest.mark.usefixtures("parts", "quick")
@pytest.mark.parametrize("streams", [1, 4])
def test_fault_s3_unavailable(
    root: Path, remote: Registry, large: VersionRecord, proxy: LossyProxy, seen: Observed, streams: int
) -> None:
    """503s and lost replies are retried a few times and no more; then the load fails as an outage, nothing stays."""
    store = ArchiveStore(root, remote, observe=seen, streams=streams)
    attempts: dict[str, int] = {"503": 0, "lost": 0}

    def refuse(method: str, path: str) -> bool:
        attempts["503"] += 1
        return True

    proxy.refuse = refuse
    with pytest.raises(RegistryUnavailable, match="SlowDown"):
        fetched(store, large.archive)
    assert 6 <= attempts["503"] <= 6 * streams

    def lose(method: str, path: str) -> bool:
        attempts["lost"] += 1
        return attempts["lost"] <= 6 * streams

    proxy.refuse = lambda method, path: False
    proxy.lose = lose
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        fetched(store, large.archive)
    assert names(root) == []
    proxy.lose = lambda method, path: False
    left = 4

    def refuse_some(method: str, path: str) -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    proxy.refuse = refuse_some
    assert whole(fetched(store, large.archive), large)
    assert seen == ["unavailable", "unavailable", "ok"]


@pytest.mark.usefixtures("parts", "quick")
def test_fault_s3_unavailable_partition(
    s3: S3Server, s3_url: str, root: Path, large: VersionRecord, seen: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that refuses connections is an outage at once, and one that swallows them holds nobody beyond time."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hole:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{hole.getsockname()[1]}")
        closed = ArchiveStore(root, Registry(open_store(s3_url)), observe=seen)
        threading.Timer(0.2, closed.close).start()
        with pytest.raises(Unavailable, match="called off"):
            closed.use(large.archive)
        store = ArchiveStore(root, Registry(open_store(s3_url)), observe=seen)
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        fetched(store, large.archive)
    assert seen == ["unavailable"] * 2
    assert names(root) == []
