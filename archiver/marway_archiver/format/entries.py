"""What goes into an archive: named contents that are read in chunks, wherever they come from."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from marway.errors import InvalidArchive

__all__ = ["CHUNK_BYTES", "Entry", "from_bytes", "from_file", "open_regular", "read_all", "reason"]

CHUNK_BYTES = 1024 * 1024
"""How much of a file is in memory at a time."""

_CHANGED = "changed while it was being packed: wait until it is written, then pack again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive.

    Attributes:
        name: Path inside the archive, with `/`.
        size: Bytes.
        origin: Where it comes from, for messages.
        chunks: Starts reading; what it yields has ``size`` bytes in all.
        path: The file it is read from, where there is one.
    """

    name: str
    size: int
    origin: str
    chunks: Callable[[], Iterator[bytes]]
    path: Path | None = None


def reason(exc: OSError) -> str:
    """Return what the operating system says about ``exc``, without number and path."""
    return (exc.strerror or str(exc) or type(exc).__name__).lower()


def from_bytes(name: str, data: bytes, *, origin: str | None = None) -> Entry:
    """Return an entry that holds ``data``."""
    return Entry(name, len(data), origin or name, lambda: iter((data,)))


def from_file(name: str, path: Path) -> Entry:
    """Return an entry that holds the regular file ``path``, and notices when it changes meanwhile.

    Raises:
        InvalidArchive: It is missing, cannot be read, or is no regular file. Reading its chunks raises it
            as well, when the file is not the one, or not as long or as old, as when it was first seen.
    """
    first = open_regular(path)
    try:
        seen = os.fstat(first)
    finally:
        os.close(first)

    def chunks() -> Iterator[bytes]:
        fd = open_regular(path)
        try:
            if _identity(os.fstat(fd)) != _identity(seen):
                raise InvalidArchive(f"{path} {_CHANGED}")
            left = seen.st_size
            while left:
                data = os.read(fd, min(CHUNK_BYTES, left))
                if not data:
                    break
                left -= len(data)
                yield data
            if left or _identity(os.fstat(fd)) != _identity(seen):
                raise InvalidArchive(f"{path} {_CHANGED}")
        except OSError as exc:
            raise InvalidArchive(f"{path} cannot be read: {reason(exc)}") from exc
        finally:
            os.close(fd)

    return Entry(name, seen.st_size, str(path), chunks, path)


def read_all(entry: Entry, limit: int) -> bytes:
    """Return the whole content of ``entry``.

    Raises:
        InvalidArchive: It has more than ``limit`` bytes, or cannot be read.
    """
    if entry.size > limit:
        raise InvalidArchive(f"{entry.origin} has {entry.size} bytes: at most {limit} are accepted")
    return b"".join(entry.chunks())


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor; never wait, as a FIFO would make us.

    Raises:
        InvalidArchive: It is missing, something else than a file, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InvalidArchive(f"{path} is a directory: a file is wanted here")
        if not stat.S_ISREG(mode):
            raise InvalidArchive(f"{path} is not a regular file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        raise InvalidArchive(f"{path} does not exist") from exc
    except (OSError, ValueError) as exc:
        why = reason(exc) if isinstance(exc, OSError) else str(exc)
        raise InvalidArchive(f"{path} cannot be read: {why}") from exc
