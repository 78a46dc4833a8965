"""The zip structures that archives consist of, and the one way in which a canonical archive writes them.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to
4.3.16 (end records) and 4.5.3 (zip64). We write them ourselves, because what Python's `zipfile` writes
differs between its releases, and a canonical archive has the same bytes everywhere. Nothing is deflated: weights do not
compress, and what zlib makes of text differs between its builds (zlib, zlib-ng, Cloudflare's).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from marway.errors import InvalidArchive
from marway_archiver.format.entries import CHUNK_BYTES, Entry
from marway_archiver.format.names import canonical_order

__all__ = [
    "CENTRAL",
    "CENTRAL_SIGNATURE",
    "DEFLATED",
    "END",
    "END64",
    "END64_SIGNATURE",
    "END_SIGNATURE",
    "LIMIT16",
    "LIMIT32",
    "LOCAL",
    "LOCAL_SIGNATURE",
    "LOCATOR64",
    "LOCATOR64_SIGNATURE",
    "STORED",
    "UTF8_FLAG",
    "ZIP64_EXTRA",
    "Placed",
    "central_header",
    "end_records",
    "file_digest",
    "local_header",
    "write_archive",
]

LOCAL = struct.Struct("<4s5H3I2H")
"""Signature, version needed, flags, method, time, date, crc, compressed size, size, name and extra length."""
CENTRAL = struct.Struct("<4s6H3I5H2I")
"""As `LOCAL` after "made by", then comment length, disk, attributes (internal, external), offset."""
END = struct.Struct("<4s4H2IH")
"""Signature, disk, directory's disk, entries here, entries, directory's size and offset, comment length."""
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")

LOCAL_SIGNATURE = b"PK\x03\x04"
CENTRAL_SIGNATURE = b"PK\x01\x02"
END_SIGNATURE = b"PK\x05\x06"
END64_SIGNATURE = b"PK\x06\x06"
LOCATOR64_SIGNATURE = b"PK\x06\x07"

STORED = 0
DEFLATED = 8
UTF8_FLAG = 0x800
ZIP64_EXTRA = 1
LIMIT16 = 0xFFFF
LIMIT32 = 0xFFFFFFFF
"""A field that holds its limit means: see the zip64 fields."""

_DATE = 1 << 5 | 1  # 1980-01-01, the first day that zip knows; the time is 00:00
_MODE = 0o100644 << 16  # a regular file that all may read
_UNIX = 3 << 8
_PLAIN, _ZIP64 = 20, 45  # versions needed


@dataclass(frozen=True, slots=True)
class Placed:
    """A stored file as the directory names it: size in bytes, CRC-32, and where its local header begins."""

    name: str
    size: int
    crc32: int
    offset: int


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else UTF8_FLAG


def local_header(name: str, size: int, crc32: int) -> bytes:
    """Return the canonical local header: stored, sizes and CRC in place, zip64 only where needed."""
    raw = name.encode()
    extra = b""
    needed, field = _PLAIN, size
    if size >= LIMIT32:
        extra = struct.pack("<2H2Q", ZIP64_EXTRA, 16, size, size)
        needed, field = _ZIP64, LIMIT32
    head = LOCAL.pack(LOCAL_SIGNATURE, needed, _flags(raw), STORED, 0, _DATE, crc32, field, field, len(raw), len(extra))
    return head + raw + extra


def central_header(entry: Placed) -> bytes:
    """Return the canonical directory entry of a stored file: mode 0644, made on Unix, 1980-01-01."""
    raw = entry.name.encode()
    wide: list[int] = []
    size, offset = entry.size, entry.offset
    if size >= LIMIT32:
        wide += [size, size]
        size = LIMIT32
    if offset >= LIMIT32:
        wide.append(offset)
        offset = LIMIT32
    extra = struct.pack(f"<2H{len(wide)}Q", ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    needed = _ZIP64 if wide else _PLAIN
    head = CENTRAL.pack(
        CENTRAL_SIGNATURE, _UNIX | needed, needed, _flags(raw), STORED, 0, _DATE, entry.crc32, size, size,
        len(raw), len(extra), 0, 0, 0, _MODE, offset,
    )  # fmt: skip
    return head + raw + extra


def end_records(entries: int, size: int, offset: int) -> bytes:
    """Return what ends a canonical archive whose directory has ``size`` bytes from ``offset`` on."""
    wide = b""
    if entries >= LIMIT16 or size >= LIMIT32 or offset >= LIMIT32:
        wide = END64.pack(
            END64_SIGNATURE, END64.size - 12, _UNIX | _ZIP64, _ZIP64, 0, 0, entries, entries, size, offset
        ) + LOCATOR64.pack(LOCATOR64_SIGNATURE, 0, offset + size, 1)
    return wide + END.pack(
        END_SIGNATURE, 0, 0, min(entries, LIMIT16), min(entries, LIMIT16), min(size, LIMIT32),
        min(offset, LIMIT32), 0,
    )  # fmt: skip


def write_archive(out: BinaryIO, entries: Iterable[Entry], tick: Callable[[int], None]) -> None:
    """Write ``entries`` as a canonical archive to the empty, seekable ``out``.

    The CRC of a file stands before its data and is known after it, so each local header is written
    twice; no data descriptor is needed, and one parser reads what the other reads.

    Args:
        out: The file.
        entries: In any order.
        tick: Called with the bytes of each chunk written.

    Raises:
        InvalidArchive: A source cannot be read or changed meanwhile.
    """
    placed: list[Placed] = []
    offset = 0
    for entry in sorted(entries, key=lambda entry: canonical_order(entry.name)):
        out.write(local_header(entry.name, entry.size, 0))
        crc32 = size = 0
        for chunk in entry.chunks():
            out.write(chunk)
            crc32 = zlib.crc32(chunk, crc32)
            size += len(chunk)
            tick(len(chunk))
        if size != entry.size:
            raise InvalidArchive(f"{entry.origin} gave {size} bytes, not {entry.size}")
        end = out.tell()
        out.seek(offset)
        out.write(local_header(entry.name, size, crc32))
        out.seek(end)
        placed.append(Placed(entry.name, size, crc32, offset))
        offset = end
    directory = b"".join(map(central_header, placed))
    out.write(directory)
    out.write(end_records(len(placed), len(directory), offset))


def file_digest(file: BinaryIO, tick: Callable[[int], None]) -> tuple[str, int]:
    """Return the sha256 (hex) and the number of all bytes of ``file``, calling ``tick`` with each chunk's."""
    digest = hashlib.sha256()
    size = 0
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        tick(len(chunk))
    return digest.hexdigest(), size
