"""The archive store: what is in it is whole, and was fetched once."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marway.errors import ArchiveCorrupt, LoadFailed, Unavailable
from marway.records import ArchiveRef, VersionRecord
from marway.registry import Registry
from marway_sidecar.archives import ArchiveStore, FetchOutcome


class Observed(list[FetchOutcome]):
    def __call__(self, outcome: FetchOutcome, duration_s: float) -> None:
        self.append(outcome)


@pytest.fixture
def seen() -> Observed:
    return Observed()


@pytest.fixture
def store(tmp_path: Path, registry: Registry, seen: Observed) -> ArchiveStore:
    return ArchiveStore(tmp_path / "store", registry, observe=seen)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "store").iterdir() if path.is_file())


def test_an_archive_is_fetched_and_readable_by_others(
    tmp_path: Path, store: ArchiveStore, record: VersionRecord, seen: Observed
) -> None:
    """The archive is there under its digest, read-only for all, and fetched no second time."""
    for _ in range(2):
        path = store.ensure(record.archive)
    assert path.read_bytes() == b"some 1.0"
    assert path.stat().st_mode & 0o777 == 0o444
    assert files(tmp_path) == [f"{record.archive.sha256}.mar"]
    assert seen == ["ok"]


def test_many_at_once_fetch_once(tmp_path: Path, store: ArchiveStore, record: VersionRecord, seen: Observed) -> None:
    """Twenty callers at once make one download; the others share it."""
    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(store.ensure, [record.archive] * 20))) == 1
    assert seen.count("ok") == 1
    assert set(seen) <= {"ok", "shared"}
    assert files(tmp_path) == [f"{record.archive.sha256}.mar"]


def test_damaged_bytes_never_become_visible(
    tmp_path: Path, store: ArchiveStore, record: VersionRecord, registry: Registry, seen: Observed
) -> None:
    """One changed byte in the registry is noticed, and leaves nothing behind."""
    (stored,) = (tmp_path / "registry" / "archives" / "sha256").iterdir()
    stored.chmod(0o644)
    stored.write_bytes(b"Some 1.0")
    with pytest.raises(ArchiveCorrupt, match="damaged"):
        store.ensure(record.archive)
    assert files(tmp_path) == []
    assert seen == ["corrupt"]


def test_a_missing_archive_is_named(store: ArchiveStore, seen: Observed) -> None:
    """An archive that the registry does not have gives an error that says what to do."""
    with pytest.raises(LoadFailed, match="publish the version again"):
        store.ensure(ArchiveRef(sha256="0" * 64, size_bytes=1))
    assert seen == ["missing"]


def test_a_store_that_cannot_be_written_is_an_outage(
    tmp_path: Path, registry: Registry, record: VersionRecord, seen: Observed
) -> None:
    """A file in the store's place gives an error that says so, and that may be tried elsewhere."""
    (tmp_path / "store").write_text("not a directory")
    with pytest.raises(Unavailable, match="cannot store"):
        ArchiveStore(tmp_path / "store", registry, observe=seen).ensure(record.archive)
    assert seen == ["no_space"]


def test_a_killed_fetch_leaves_nothing_visible_and_holds_nobody_up(
    tmp_path: Path, store: ArchiveStore, record: VersionRecord, seen: Observed
) -> None:
    """A process that is killed with the lock and half an archive does not keep the next one from fetching it."""
    script = f"""
import fcntl, os, signal, sys
from pathlib import Path
root = Path({str(tmp_path / "store")!r})
(root / ".locks").mkdir(parents=True)
handle = open(root / ".locks" / {record.archive.sha256[:2]!r}, "w")
fcntl.flock(handle, fcntl.LOCK_EX)
(root / ".fetch-half").write_bytes(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -9
    assert store.ensure(record.archive).read_bytes() == b"some 1.0"
    assert seen == ["ok"]
