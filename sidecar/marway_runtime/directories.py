"""Where a runtime keeps its files, and the removal of what a killed one left there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from marway.errors import InvalidSettings
from marway.wire.runtime import LOGS, RUNTIME_FILE, RUNTIME_SOCKET, TemporaryRoom

__all__ = ["Directories", "make_fresh", "only_one", "prepare", "remove", "remove_leftovers"]

_PREFIX = "marway-ts-"
_PATH_MAX = 107 - len("/t/.ts.sock.65535")  # a Unix socket's path has 107 bytes


@dataclass(frozen=True, slots=True)
class Directories:
    """The directories of one runtime; ``runtime`` it shares with the sidecar."""

    runtime: Path
    short: Path
    """For sockets, whose paths must be short; this runtime's own. `<runtime>/tmp` links to it."""

    @property
    def temporary(self) -> Path:
        """TorchServe's temporary directory, and its workers': two that share one delete each other's sockets."""
        return self.short / "t"

    @property
    def fork_socket(self) -> Path:
        return self.short / "fork.sock"

    @property
    def work(self) -> Path:
        """TorchServe's working directory, empty at its start."""
        return self.runtime / "work"

    @property
    def logs(self) -> Path:
        return self.runtime / LOGS


def prepare(runtime: Path) -> Directories:
    """Make the directories, after removing what a runtime that was killed left.

    Raises:
        InvalidSettings: The path of the system's temporary directory is too long for sockets.
    """
    link = runtime / "tmp"
    _remove_linked(link)
    for pattern in (RUNTIME_FILE, f".{RUNTIME_FILE}-*", RUNTIME_SOCKET, f".{RUNTIME_SOCKET}-*"):
        for stale in runtime.glob(pattern):
            stale.unlink()
    short = _make_short()
    link.symlink_to(short)
    directories = Directories(runtime, short)
    directories.logs.mkdir(exist_ok=True)
    for made in (directories.work, directories.temporary):
        make_fresh(made)
    return directories


def make_fresh(directory: Path) -> None:
    """Make a directory that is empty, for the owner alone."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def remove_leftovers(directories: Directories) -> TemporaryRoom:
    """Remove what TorchServe left of archives that it could not unpack, which it never does itself; blocks.

    It unpacks into a directory of such a name and moves that away when it is whole, so none may be at it.
    """
    left = list(directories.temporary.glob("models*.download"))
    for half in left:
        shutil.rmtree(half, ignore_errors=True)
    free = shutil.disk_usage(directories.temporary).free
    return TemporaryRoom(directory=str(directories.temporary), free_bytes=free, removed=len(left))


def remove(directories: Directories) -> None:
    """Remove what lies outside the shared directory."""
    _remove_linked(directories.runtime / "tmp")


def _remove_linked(link: Path) -> None:
    if link.is_symlink():
        old = link.readlink()
        if old.name.startswith(_PREFIX):
            shutil.rmtree(old, ignore_errors=True)
        link.unlink()


def _make_short() -> Path:
    for parent in (None, "/tmp"):  # noqa: S108 - mkdtemp makes it ours alone
        short = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        if len(os.fsencode(short)) <= _PATH_MAX:
            return short
        with contextlib.suppress(OSError):
            short.rmdir()
    raise InvalidSettings("the temporary directory's path is too long for worker sockets: set TMPDIR to a shorter one")


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the runtime directory, which has one runtime.

    Raises:
        InvalidSettings: Another one holds it.
    """
    with (directory / "runtime.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise InvalidSettings(f"another runtime is using {directory}: give this one its own --runtime-dir") from exc
        yield
