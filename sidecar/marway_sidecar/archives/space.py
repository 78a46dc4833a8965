"""Room on the disk: reserved before a download, and made by evicting what nobody uses, least recently used first."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from marway.objects.files import Files
from marway.objects.locks import Pause, fenced_lock, try_exclusive
from marway_sidecar.archives.layout import ARCHIVE_SUFFIX, Layout
from marway_sidecar.archives.partial import Partial, remove_abandoned
from marway_sidecar.archives.quarantine import quarantined_bytes, shrink
from marway_sidecar.archives.references import last_used

__all__ = ["NoRoom", "Space"]

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the file system's block is."""


class NoRoom(Exception):
    """There is no room for an archive, and none can be made: its text says why."""


@dataclass(frozen=True, slots=True)
class Space:
    """How much the store may hold.

    A download counts from its beginning with all that it will be: its file has the archive's size at once, so that
    every process sees what is promised, and the promise ends with the file.

    Attributes:
        layout: Of the store.
        limit_bytes: What archives, downloads and quarantine may take in all; None means all that the volume has.
        free_bytes: What stays free on the volume.
        files: How the disk is changed.
    """

    layout: Layout
    limit_bytes: int | None
    free_bytes: int
    files: Files

    def reserve(self, partial: Partial, size: int, pause: Pause) -> None:
        """Promise room for ``size`` bytes to a download, evicting as needed.

        Raises:
            NoRoom: What could be evicted is not enough; nothing was.
            OSError: The store cannot be written.
        """
        # One that is stopped here and goes on later promised or evicted by what was so then: no archive in use
        # is lost by that, and the disk itself says when it is full.
        with fenced_lock(self.layout.space_lock, lambda: None, pause=pause):
            self._make_room(size)
            self.files.resize(partial.descriptor, size)

    def _make_room(self, size: int) -> None:
        if self.limit_bytes is not None and size > self.limit_bytes:
            raise NoRoom(f"it has {_mib(size)}, and the store may hold {_mib(self.limit_bytes)} (archive_store_bytes)")
        if self._short(size) <= 0:
            return
        if remove_abandoned(self.layout) and self._short(size) <= 0:
            return
        short = self._short(size)
        short -= shrink(self.layout, limit_bytes=max(0, quarantined_bytes(self.layout) - short), files_max=1 << 30)
        if short > 0:
            self._evict(short, size)

    def _short(self, size: int) -> int:
        """Return how many bytes too few there are for ``size`` more."""
        promised = allocated = 0
        for entry in self.layout.partials():
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat()
                promised += about.st_size
                allocated += min(about.st_size, about.st_blocks * _BLOCK_BYTES)
        volume = os.statvfs(self.layout.root)
        short = size + self.free_bytes + promised - allocated - volume.f_bavail * volume.f_frsize
        if self.limit_bytes is not None:
            held = sum(about.st_size for _, about in self._archives()) + quarantined_bytes(self.layout)
            short = max(short, held + promised + size - self.limit_bytes)
        return short

    def _evict(self, short: int, size: int) -> None:
        """Evict until ``short`` bytes are free, or nothing when that cannot be reached."""
        held: list[tuple[Path, int]] = []
        freed = used = 0
        candidates = sorted(
            (last_used(self.layout, path.name.removesuffix(ARCHIVE_SUFFIX)) or about.st_mtime, path, about.st_size)
            for path, about in self._archives()
        )
        try:
            for _, path, has in candidates:
                if freed >= short:
                    break
                lock = None
                with contextlib.suppress(OSError):  # another user's, or no inode left for it: as good as in use
                    lock = try_exclusive(self.layout.use_lock(path.name.removesuffix(ARCHIVE_SUFFIX)))
                if lock is None:
                    used += has
                else:
                    held.append((path, lock))
                    freed += has
            if freed < short:
                raise NoRoom(
                    f"it needs {_mib(size)}, {_mib(short - freed)} more than can be had: {_mib(used)} of the store are "
                    f"in use by loaded versions ({self._rule()})"
                )
            for path, _ in held:
                self.files.unlink(path)
                logger.info("evicted %s from the store", path.name)
        finally:
            for _, lock in held:
                os.close(lock)

    def _archives(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for entry in self.layout.archives():
            with contextlib.suppress(FileNotFoundError):
                found.append((Path(entry.path), entry.stat()))
        return found

    def _rule(self) -> str:
        limit = f"archive_store_bytes is {_mib(self.limit_bytes)}, " if self.limit_bytes is not None else ""
        return f"{limit}archive_store_free_bytes is {_mib(self.free_bytes)}"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
