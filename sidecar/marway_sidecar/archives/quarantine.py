"""Where bytes go that are not what their digest promises: for a person to look at, and bounded."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from pathlib import Path

from marway.records import ArchiveRef, utc_now
from marway_sidecar.archives.layout import ARCHIVE_SUFFIX, Layout

__all__ = ["quarantine", "quarantined_bytes", "shrink"]

logger = logging.getLogger(__name__)

_FILES_MAX = 8
"""Of the newest; one for each digest."""


def quarantine(layout: Layout, source: Path, archive: ArchiveRef, *, reason: str, limit_bytes: int) -> None:
    """Move a file out of the way and write why. Where that cannot be, remove it: it must not be seen as an archive.

    Args:
        layout: Of the store.
        source: The file.
        archive: What it should have been.
        reason: What was found, in a sentence.
        limit_bytes: How much is kept in all; of a larger file only the reason is.
    """
    logger.error("%s", reason)
    target = layout.quarantine / f"{archive.sha256}{ARCHIVE_SUFFIX}"
    try:
        layout.quarantine.mkdir(exist_ok=True)
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
        if size <= limit_bytes:
            source.replace(target)
            os.utime(target)
        shrink(layout, limit_bytes=limit_bytes, files_max=_FILES_MAX)
    except OSError as exc:
        logger.warning("cannot keep it in %s: %s", layout.quarantine, exc.strerror)
    finally:
        with contextlib.suppress(OSError):
            source.unlink()  # a file of that name that is there still is the damaged one


def quarantined_bytes(layout: Layout) -> int:
    """Return how much is kept, in bytes."""
    return sum(size for _, size, _ in _kept(layout))


def shrink(layout: Layout, *, limit_bytes: int, files_max: int) -> int:
    """Remove the oldest until no more than this is left; return the bytes removed."""
    kept = sorted(_kept(layout))
    total = sum(size for _, size, _ in kept)
    before = total
    while kept and (len(kept) > files_max or total > limit_bytes):
        _, size, path = kept.pop(0)
        with contextlib.suppress(OSError):
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
        total -= size
    return before - total


def _kept(layout: Layout) -> list[tuple[float, int, Path]]:
    """Return time, size and path of what is kept; a reason without bytes counts as an empty file."""
    found: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):
        for path in layout.quarantine.glob("*.json"):
            with contextlib.suppress(OSError):
                about = path.stat()
                held = path.with_suffix(ARCHIVE_SUFFIX)
                try:
                    found.append((about.st_mtime, held.stat().st_size, held))
                except FileNotFoundError:
                    found.append((about.st_mtime, 0, held))
    return found
