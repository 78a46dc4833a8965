"""Who uses which archive: shared locks, which end with the process that holds them, whatever ends it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from marway.objects.locks import Pause, take_shared
from marway_sidecar.archives.layout import Layout

__all__ = ["ArchiveUse", "last_used", "mark_used", "refer"]

_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


class ArchiveUse:
    """An archive that stays where it is until this is closed, or its process ends. Close it from any thread.

    Args:
        path: The archive.
        descriptor: Holds its lock; None in a store that cannot be written, where this process evicts nothing either.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Let the archive be evicted; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # made in a thread for a task that was cancelled: nobody is left to close it


def refer(layout: Layout, sha256: str, pause: Pause) -> int | None:
    """Return a descriptor that keeps an archive from being evicted, there or not yet; None if the store is read-only.

    Raises:
        OSError: The store cannot be used at all.
    """
    path = layout.use_lock(sha256)
    try:
        layout.make()
        descriptor = take_shared(path, pause=pause)
        with contextlib.suppress(OSError):
            os.utime(descriptor)
    except OSError as exc:
        if exc.errno not in _NOT_WRITABLE:
            raise
        return None
    return descriptor


def mark_used(layout: Layout, sha256: str) -> None:
    """Note that an archive is used now."""
    with contextlib.suppress(OSError):
        layout.use_lock(sha256).touch()


def last_used(layout: Layout, sha256: str) -> float:
    """Return when an archive was used last, by the file system's clock; 0 if it never was."""
    try:
        return layout.use_lock(sha256).stat().st_mtime
    except OSError:
        return 0.0
