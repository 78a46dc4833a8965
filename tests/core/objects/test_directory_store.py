"""The directory store where processes stop or die, and disks fill up."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marway.errors import InvalidSettings, RegistryUnavailable
from marway.objects import DirectoryStore, ObjectExists, locks, open_store
from marway.objects.files import Files
from marway.objects.probing import probe
from marway.refs import new_ulid

STOPPING = """
import os, signal, sys
from pathlib import Path
from marway.objects import DirectoryStore, ObjectChanged, directory
from marway.objects.files import Files

def stop():
    print("stopping", flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))

class StopsBeforeRename(Files):
    def rename(self, source, target):
        if sys.argv[2] == "rename":
            stop()
        super().rename(source, target)

if sys.argv[2] == "compare":
    real = directory._etag_of
    def etag_of(path):
        directory._etag_of = real
        stop()
        return real(path)
    directory._etag_of = etag_of

store = DirectoryStore(Path(sys.argv[1]), files=StopsBeforeRename())
before = store.get("a/b")
try:
    store.replace("a/b", b"stopped", etag=before.etag)
except ObjectChanged:
    print("refused")
else:
    print("replaced")
"""


def stopping(root: Path, where: str, how: str) -> subprocess.Popen[str]:
    """Start a process that stops or dies in the middle of replacing a/b, lock in hand, and wait until it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING, str(root), where, how],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"
    return process


@pytest.mark.parametrize("where", ["compare", "rename"])
def test_stopped_holder(directory: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A writer that is stopped with the lock in its hands holds up nobody, and overwrites nothing when it goes on."""
    monkeypatch.setattr(locks, "STUCK_AFTER_S", 0.2)
    tag = directory.create("a/b", b"before")
    with stopping(tmp_path / "registry", where, "SIGSTOP") as process:
        after = directory.replace("a/b", b"after", etag=tag)
        directory.replace("a/b", b"and after", etag=after)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=30)[0] == "refused\n"
    assert directory.get("a/b").data == b"and after"


@pytest.mark.parametrize("where", ["compare", "rename"])
def test_killed_holder(directory: DirectoryStore, tmp_path: Path, where: str) -> None:
    """A writer that is killed with the lock in its hands holds up nobody, and what it left is swept."""
    tag = directory.create("a/b", b"before")
    with stopping(tmp_path / "registry", where, "SIGKILL") as process:
        process.wait(30)
    began = time.monotonic()
    directory.replace("a/b", b"after", etag=tag)
    assert time.monotonic() - began < locks.STUCK_AFTER_S
    assert len(directory.sweep(older_than_s=-60)) == 1
    assert [path.name for path in (tmp_path / "registry" / "a").iterdir()] == ["b"]


def test_stopped_turn(directory: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is never given back is waited for only so long."""
    monkeypatch.setattr("marway.objects.directory._LOCK_WAIT_S", 0.1)
    with directory.advisory_lock("a/b"), directory.advisory_lock("a/b"):
        directory.create("a/b", b"")


class Full(Files):
    """A disk with no room."""

    def write(self, descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_disk_full(tmp_path: Path) -> None:
    """A full disk is said to be the reason, and nothing partial stays."""
    store = DirectoryStore(tmp_path / "registry", files=Full())
    with pytest.raises(RegistryUnavailable, match="no space left"):
        store.create("a/b", b"data")
    assert list((tmp_path / "registry" / "a").iterdir()) == []


def test_root_is_a_file(tmp_path: Path) -> None:
    """A registry directory that is a file is said to be one."""
    (tmp_path / "registry").write_text("")
    with pytest.raises(RegistryUnavailable, match="is a file, not a directory"):
        open_store(str(tmp_path / "registry")).create("a/b", b"")


def test_directory_removed_meanwhile(directory: DirectoryStore, tmp_path: Path) -> None:
    """A directory that somebody removed is made again."""
    directory.create("a/b", b"1")
    (tmp_path / "registry" / "a" / "b").unlink()
    (tmp_path / "registry" / "a").rmdir()
    directory.create("a/b", b"2")
    assert directory.get("a/b").data == b"2"


def test_others_can_read(directory: DirectoryStore, tmp_path: Path) -> None:
    """Objects can be read by the users that other pods run as."""
    directory.create("a/b", b"1")
    assert (tmp_path / "registry" / "a" / "b").stat().st_mode & 0o777 == 0o644


class Unlinked(Files):
    """A file system whose link() replaces: it lets two writers create one file."""

    def link(self, source: Path, target: Path) -> None:
        os.replace(source, target)  # noqa: PTH105 - the call that is wrong here
        source.touch()


def test_careless_file_system(tmp_path: Path) -> None:
    """A file system that lets two writers create one file fails the probe."""
    with pytest.raises(InvalidSettings, match="creators of one object"):
        probe(DirectoryStore(tmp_path / "registry", files=Unlinked()))


@pytest.mark.parametrize("url", ["ftp://host/x", "", "file://host/x"])
def test_unknown_urls(url: str) -> None:
    """A URL of no known kind is refused with what to use."""
    with pytest.raises(InvalidSettings, match="file:///path"):
        open_store(url)


def test_temporary_files_are_hidden(directory: DirectoryStore, tmp_path: Path) -> None:
    """What an interrupted write left is neither listed nor in the way."""
    directory.create("a/b", b"1")
    (tmp_path / "registry" / "a" / f".tmp-{new_ulid()}").write_bytes(b"partial")
    assert list(directory.keys("")) == ["a/b"]
    with pytest.raises(ObjectExists):
        directory.create("a/b", b"2")
