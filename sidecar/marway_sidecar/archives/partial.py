"""The file that a download goes to, before it is an archive."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from marway.objects.files import Files
from marway_sidecar.archives.layout import Layout

__all__ = ["Fenced", "Partial", "fence", "remove_abandoned"]


class Fenced(Exception):
    """Another process took this one for stopped and removed its file: it must not go on as if it had its turn."""


class Partial:
    """A hidden file that its writer locks for as long as it lives, so that others know whether it is abandoned.

    Args:
        layout: Of the store.
        sha256: Of the archive it is to be.
        files: How the disk is changed.
    """

    def __init__(self, layout: Layout, sha256: str, files: Files) -> None:
        self._files = files
        while True:
            self.descriptor, self.path = files.create_temporary(layout.root, layout.partial_prefix(sha256))
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


def fence(layout: Layout, sha256: str) -> None:
    """Remove every download of an archive: whoever goes on with one cannot publish it."""
    for entry in list(layout.partials(sha256)):
        with contextlib.suppress(OSError):
            Path(entry.path).unlink()


def remove_abandoned(layout: Layout) -> int:
    """Remove the downloads whose processes are dead; return how many there were."""
    count = 0
    for entry in list(layout.partials()):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            try:
                descriptor = os.open(entry.path, os.O_RDWR)
            except PermissionError:
                descriptor = os.open(entry.path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(entry.path).unlink()
                count += 1
            finally:
                os.close(descriptor)
    return count
