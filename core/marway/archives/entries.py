"""What goes into an archive: names that unpack everywhere to the same place, and contents that are read in chunks."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from marway.errors import InvalidArchive, clip

__all__ = [
    "BUNDLE_MANIFEST_NAME",
    "CHUNK_BYTES",
    "MANIFEST_NAME",
    "MAX_ENTRIES",
    "MAX_NAME_BYTES",
    "Entry",
    "canonical_order",
    "check_name",
    "check_no_collisions",
    "from_bytes",
    "from_file",
    "open_regular",
    "read_all",
    "reason",
    "shown",
]

CHUNK_BYTES = 1024 * 1024
"""How much of a file is in memory at a time."""
_CHANGED = "changed while it was being packed: wait until it is written, then pack again"
MANIFEST_NAME = "MAR-INF/MANIFEST.json"
"""Where a `.mar` holds its manifest."""
BUNDLE_MANIFEST_NAME = "MARWAY-INF/bundle.json"
"""Where a bundle holds its manifest."""
_MAX_COMPONENT_BYTES = 255
"""Longest file or directory name, in bytes of UTF-8: what the usual file systems take."""
MAX_ENTRIES = 10_000
"""Most files in an archive."""
MAX_NAME_BYTES = 1024
"""Longest path in an archive, in bytes of UTF-8: leaves room for the directory it is unpacked below."""

_DRIVE = re.compile(r"[A-Za-z]:")


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


def shown(name: str) -> str:
    """Return ``name`` quoted and cut, so that an untrusted one is safe on a terminal."""
    return clip(ascii(name), 160)


def check_name(name: str) -> str:
    """Return ``name`` if a file of that name unpacks everywhere to the same place, else raise.

    Raises:
        InvalidArchive: It is empty, absolute, has a drive letter, a backslash, a control character, a
            component that is empty, `.`, `..`, too long or ends with a dot or a space, or is no UTF-8.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArchive(f"{shown(name)} is not a UTF-8 name") from exc
    if not name:
        raise InvalidArchive("an entry has an empty name")
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in name):
        raise InvalidArchive(f"{shown(name)} has a control character in its name")
    if name.startswith("/") or _DRIVE.match(name):
        raise InvalidArchive(f"{shown(name)} is an absolute path")
    if "\\" in name:
        raise InvalidArchive(f"{shown(name)} has a backslash in its name, which is a separator elsewhere")
    if len(encoded) > MAX_NAME_BYTES:
        raise InvalidArchive(f"{shown(name)} is longer than {MAX_NAME_BYTES} bytes")
    for component in name.split("/"):
        if component == "..":
            raise InvalidArchive(f"{shown(name)} leaves the archive's directory ('..')")
        if component in {"", "."}:
            raise InvalidArchive(f"{shown(name)} has an empty component or '.' in its path")
        if component[-1] in ". ":
            raise InvalidArchive(f"{shown(name)} has a component that ends with a dot or a space")
        if len(component.encode()) > _MAX_COMPONENT_BYTES:
            raise InvalidArchive(f"{shown(name)} has a component longer than {_MAX_COMPONENT_BYTES} bytes")
    return name


def check_no_collisions(names: Iterable[str]) -> None:
    """Refuse names that fall together on a file system that ignores case or Unicode form.

    Raises:
        InvalidArchive: Two names are one, differ only in case or form, or one is a directory of another.
    """
    files: dict[str, str] = {}
    for name in names:
        folded = _fold(name)
        if folded in files:
            other = files[folded]
            if other == name:
                raise InvalidArchive(f"{shown(name)} is there twice")
            raise InvalidArchive(
                f"{shown(other)} and {shown(name)} differ only in case: they are one file on some systems"
            )
        files[folded] = name
    for folded, name in files.items():
        parent = folded
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in files:
                raise InvalidArchive(f"{shown(files[parent])} is a file, and a directory of {shown(name)}")


def canonical_order(name: str) -> tuple[bool, bytes]:
    """Sort key of entries: the manifest first, the others by the bytes of their names."""
    return name not in (MANIFEST_NAME, BUNDLE_MANIFEST_NAME), name.encode()


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
