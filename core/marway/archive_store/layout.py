"""Where everything lies in an archive store; who writes an archive there, and who uses it.

::

    <sha256>.mar                what TorchServe reads: whole, checked, never written again
    <sha256>.bundle             the same of a bundle, which the pod's backend unpacks for its server
    <sha256>.whl                the same of a wheel, which the runtime installs
    .fetch-<sha256>-<random>    a download under way, locked by its writer; it has the archive's size from its beginning
    .locks/fetch-<sha256>       whose turn it is to download
    .locks/use-<sha256>         shared by all who use the archive; its time of change is when it was used last
    .locks/space                whose turn it is to make room
    quarantine/<sha256>.mar     bytes that are not the archive's (.bundle, .whl), and beside them in .json why
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marway.environments.lock import WheelRef
from marway.objects.files import Files
from marway.objects.locks import Pause, take_shared
from marway.records import ArchiveRef
from marway.wire.environments import wheel_file

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KEPT", "ArchiveUse", "Fenced", "Layout", "Partial", "Stored"]

KEPT = (".mar", ".bundle", ".whl")
"""How the names of what is kept end."""
_PARTIAL_PREFIX = ".fetch-"
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)

Stored = ArchiveRef | WheelRef
"""What is kept: an archive, or a wheel; both are named by the digest of their bytes, and called archives here."""
Found = list[tuple[Path, os.stat_result]]


class Fenced(Exception):
    """Another process took this one for stopped and removed its file: it must not go on as if it had its turn."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of the store at ``root``."""

    root: Path

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def space_lock(self) -> Path:
        return self._locks / "space"

    def path(self, stored: Stored) -> Path:
        if isinstance(stored, WheelRef):
            return self.root / wheel_file(stored.sha256)
        return self.root / f"{stored.sha256}.{stored.kind}"

    def fetch_lock(self, sha256: str) -> Path:
        return self._locks / f"fetch-{sha256}"

    def use_lock(self, sha256: str) -> Path:
        return self._locks / f"use-{sha256}"

    def make(self) -> None:
        """Make the directories."""
        self._locks.mkdir(parents=True, exist_ok=True)

    def archives(self) -> Found:
        """Return the archives, in no order."""
        return self._found(lambda name: name.endswith(KEPT) and not name.startswith("."))

    def partials(self, sha256: str | None = None) -> Found:
        """Return the downloads under way or abandoned, of one archive or of all."""
        prefix = _PARTIAL_PREFIX if sha256 is None else f"{_PARTIAL_PREFIX}{sha256}-"
        return self._found(lambda name: name.startswith(prefix))

    def fence(self, sha256: str) -> None:
        """Remove every download of an archive: whoever goes on with one cannot publish it."""
        for path, _ in self.partials(sha256):
            with contextlib.suppress(OSError):
                path.unlink()

    def remove_abandoned(self) -> int:
        """Remove the downloads whose processes are dead; return how many there were."""
        count = 0
        for path, _ in self.partials():
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                try:
                    descriptor = os.open(path, os.O_RDWR)
                except PermissionError:
                    descriptor = os.open(path, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    count += 1
                finally:
                    os.close(descriptor)
        return count

    def use(self, stored: Stored, pause: Pause) -> ArchiveUse:
        """Keep an archive, there or not yet, from being evicted.

        Raises:
            OSError: The store cannot be used at all.
        """
        descriptor = None
        try:
            self.make()
            descriptor = take_shared(self.use_lock(stored.sha256), pause=pause)
            with contextlib.suppress(OSError):
                os.utime(descriptor)
        except OSError as exc:
            if exc.errno not in _NOT_WRITABLE:
                raise
        return ArchiveUse(self.path(stored), descriptor)

    def mark_used(self, sha256: str) -> None:
        """Note that an archive is used now."""
        with contextlib.suppress(OSError):
            self.use_lock(sha256).touch()

    def last_used(self, sha256: str) -> float:
        """Return when an archive was used last, by the file system's clock; 0 if it never was."""
        try:
            return self.use_lock(sha256).stat().st_mtime
        except OSError:
            return 0.0

    @property
    def _locks(self) -> Path:
        return self.root / ".locks"

    def _found(self, wanted: Callable[[str], bool]) -> Found:
        found = []
        with os.scandir(self.root) as entries:
            for entry in entries:
                if wanted(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((Path(entry.path), entry.stat()))
        return found


class ArchiveUse:
    """An archive that stays where it is until this is closed, or its process ends. Close it from any thread."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor  # None in a store that cannot be written, where nothing is evicted either

    @property
    def locked(self) -> bool:
        """Whether other processes see it."""
        return self._descriptor is not None

    def close(self) -> None:
        """Let the archive be evicted; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # made in a thread for a task that was cancelled: nobody is left to close it


class Partial:
    """The file that a download goes to before it is an archive: hidden, and locked by its writer for as long as it
    lives, so that others know whether it is abandoned.
    """

    def __init__(self, layout: Layout, sha256: str, files: Files) -> None:
        self._files = files
        while True:
            self.descriptor, self.path = files.create_temporary(layout.root, f"{_PARTIAL_PREFIX}{sha256}-")
            fcntl.flock(self.descriptor, fcntl.LOCK_SH)  # SH: over NFS both kinds want only what mkstemp gives
            if not self.is_removed:
                return
            os.close(self.descriptor)  # taken for abandoned before it was locked

    @property
    def is_removed(self) -> bool:
        """Whether this process was fenced."""
        return os.fstat(self.descriptor).st_nlink == 0

    def publish(self, target: Path) -> None:
        """Make it read-only for all, lasting, and visible as ``target``.

        Raises:
            Fenced: It is gone; nothing became visible.
        """
        self._files.sync(self.descriptor)
        os.fchmod(self.descriptor, 0o444)  # last: over NFS only who may write a file can find it abandoned
        try:
            self._files.rename(self.path, target)
        except FileNotFoundError as exc:
            raise Fenced from exc
        self._files.sync_directory(target.parent)

    def close(self) -> None:
        """Remove it if it did not become anything."""
        try:
            with contextlib.suppress(OSError):
                self._files.unlink(self.path)
        finally:
            os.close(self.descriptor)
