"""Room on the disk: reserved before a download, and made by evicting what nobody uses, least recently used first.

Bytes that are not what their digest promises are kept in quarantine, for a person to look at, and bounded.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from marway.archive_store.layout import KEPT, Layout, Partial, Stored
from marway.objects.files import Files
from marway.objects.locks import Pause, fenced_lock, try_exclusive
from marway.records import utc_now

__all__ = ["NoRoom", "Space"]

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the file system's block is."""
_QUARANTINED_MAX = 8
"""Of the newest; one for each digest."""


class NoRoom(Exception):
    """There is no room for an archive, and none can be made: its text says why."""


@dataclass(frozen=True, slots=True)
class Space:
    """How much the store may hold.

    A download counts from its beginning with all that it will be: its file has the archive's size at once, so that
    every process sees what is promised, and the promise ends with the file.
    """

    layout: Layout
    limit_bytes: int | None
    """What archives, downloads and quarantine may take in all; None means all that the volume has."""
    free_bytes: int
    """What stays free on the volume."""
    quarantine_bytes: int
    """What the quarantine may take; of a larger file only the reason is kept."""
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

    def quarantine(self, source: Path, archive: Stored, reason: str) -> None:
        """Move a file that should have been ``archive`` out of the way and write why, in a sentence.

        Where that cannot be, remove it: it must not be seen as an archive.
        """
        logger.error("%s", reason)
        directory = self.layout.quarantine
        target = directory / self.layout.path(archive).name
        try:
            directory.mkdir(exist_ok=True)
            size = source.stat().st_size
            about = {
                "expected_sha256": archive.sha256,
                "expected_size_bytes": archive.size_bytes,
                "size_bytes": size,
                "reason": reason,
                "at": utc_now().isoformat(),
                "by": f"{socket.gethostname()} pid {os.getpid()}",
            }
            target.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
            if size <= self.quarantine_bytes:
                source.replace(target)
                os.utime(target)
            self._shrink_quarantine(self.quarantine_bytes, _QUARANTINED_MAX)
        except OSError as exc:
            logger.warning("cannot keep it in %s: %s", directory, exc.strerror)
        finally:
            with contextlib.suppress(OSError):
                source.unlink()  # a file of that name that is there still is the damaged one

    def _make_room(self, size: int) -> None:
        if self.limit_bytes is not None and size > self.limit_bytes:
            raise NoRoom(f"it has {_mib(size)}, and the store may hold {_mib(self.limit_bytes)} (archive_store_bytes)")
        short = self._short(size)
        if short > 0 and self.layout.remove_abandoned():
            short = self._short(size)
        if short > 0:
            short -= self._shrink_quarantine(max(0, self._quarantined() - short))
        if short > 0:
            self._evict(short, size)

    def _short(self, size: int) -> int:
        """Return how many bytes too few there are for ``size`` more."""
        partials = [about for _, about in self.layout.partials()]
        promised = sum(about.st_size for about in partials)
        allocated = sum(min(about.st_size, about.st_blocks * _BLOCK_BYTES) for about in partials)
        volume = os.statvfs(self.layout.root)
        short = size + self.free_bytes + promised - allocated - volume.f_bavail * volume.f_frsize
        if self.limit_bytes is not None:
            held = sum(about.st_size for _, about in self.layout.archives()) + self._quarantined()
            short = max(short, held + promised + size - self.limit_bytes)
        return short

    def _evict(self, short: int, size: int) -> None:
        """Evict until ``short`` bytes are free, or nothing when that cannot be reached."""
        held: list[tuple[Path, int]] = []
        freed = used = 0
        candidates = sorted(
            (self.layout.last_used(path.stem) or about.st_mtime, path, about.st_size)
            for path, about in self.layout.archives()
        )
        try:
            for _, path, has in candidates:
                if freed >= short:
                    break
                lock = None
                with contextlib.suppress(OSError):  # another user's, or no inode left for it: as good as in use
                    lock = try_exclusive(self.layout.use_lock(path.stem))
                if lock is None:
                    used += has
                else:
                    held.append((path, lock))
                    freed += has
            if freed < short:
                limit = f"archive_store_bytes is {_mib(self.limit_bytes)}, " if self.limit_bytes is not None else ""
                raise NoRoom(
                    f"it needs {_mib(size)}, {_mib(short - freed)} more than can be had: {_mib(used)} of the store are "
                    f"in use by loaded versions ({limit}archive_store_free_bytes is {_mib(self.free_bytes)})"
                )
            for path, _ in held:
                self.files.unlink(path)
                logger.info("evicted %s from the store", path.name)
        finally:
            for _, lock in held:
                os.close(lock)

    def _shrink_quarantine(self, limit_bytes: int, files_max: int | None = None) -> int:
        """Remove the oldest until no more than this is left; return the bytes removed."""
        kept = sorted(self._kept())
        before = total = sum(size for _, size, _ in kept)
        while kept and (total > limit_bytes or (files_max is not None and len(kept) > files_max)):
            _, size, path = kept.pop(0)
            with contextlib.suppress(OSError):
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)
            total -= size
        return before - total

    def _quarantined(self) -> int:
        return sum(size for _, size, _ in self._kept())

    def _kept(self) -> list[tuple[float, int, Path]]:
        """Return time, size and path of what is in quarantine; a reason without bytes counts as an empty file."""
        found: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for path in self.layout.quarantine.glob("*.json"):
                with contextlib.suppress(OSError):
                    held = next(filter(Path.exists, map(path.with_suffix, KEPT)), path.with_suffix(KEPT[0]))
                    size = held.stat().st_size if held.exists() else 0
                    found.append((path.stat().st_mtime, size, held))
        return found


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
