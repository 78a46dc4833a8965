"""The zip structures that archives consist of: the one way in which a canonical archive writes them, and what is
accepted of others, whose every field all readers must take alike.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to
4.3.16 (end records) and 4.5.3 (zip64). We write them ourselves, because what Python's `zipfile` writes
differs between its releases, and a canonical archive has the same bytes everywhere. Nothing is deflated: weights do not
compress, and what zlib makes of text differs between its builds (zlib, zlib-ng, Cloudflare's).
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from marway.archives.entries import CHUNK_BYTES, Entry, canonical_order, shown
from marway.errors import InvalidArchive

__all__ = [
    "CENTRAL",
    "CENTRAL_SIGNATURE",
    "END",
    "LIMIT32",
    "LOCAL",
    "LOCAL_SIGNATURE",
    "STORED",
    "central_header",
    "check_attributes",
    "check_end",
    "check_features",
    "decode",
    "end_records",
    "file_digest",
    "inflate",
    "local_header",
    "write_archive",
    "zip64_field",
]

LOCAL = struct.Struct("<4s5H3I2H")
"""Signature, version needed, flags, method, time, date, crc, compressed size, size, name and extra length."""
CENTRAL = struct.Struct("<4s6H3I5H2I")
"""As `LOCAL` after "made by", then comment length, disk, attributes (internal, external), offset."""
END = struct.Struct("<4s4H2IH")
"""Signature, disk, directory's disk, entries here, entries, directory's size and offset, comment length."""
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")

LOCAL_SIGNATURE = b"PK\x03\x04"
CENTRAL_SIGNATURE = b"PK\x01\x02"
_END_SIGNATURE = b"PK\x05\x06"
_END64_SIGNATURE = b"PK\x06\x06"
_LOCATOR64_SIGNATURE = b"PK\x06\x07"

STORED = 0
_DEFLATED = 8
_UTF8_FLAG = 0x800
_ZIP64_EXTRA = 1
_LIMIT16 = 0xFFFF
LIMIT32 = 0xFFFFFFFF
"""A field that holds its limit means: see the zip64 fields."""

_DATE = 1 << 5 | 1  # 1980-01-01, the first day that zip knows; the time is 00:00
_MODE = 0o100644 << 16  # a regular file that all may read
_UNIX = 3 << 8
_PLAIN, _ZIP64 = 20, 45  # versions needed
_ENCRYPTED, _DESCRIPTOR, _LEVEL = 1, 8, 6  # flag bits; the last are hints of the compressor
_UNICODE_PATH = 0x7075


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else _UTF8_FLAG


def local_header(name: str, size: int, crc32: int) -> bytes:
    """Return the canonical local header: stored, sizes and CRC in place, zip64 only where needed."""
    raw = name.encode()
    extra = b""
    needed, field = _PLAIN, size
    if size >= LIMIT32:
        extra = struct.pack("<2H2Q", _ZIP64_EXTRA, 16, size, size)
        needed, field = _ZIP64, LIMIT32
    head = LOCAL.pack(LOCAL_SIGNATURE, needed, _flags(raw), STORED, 0, _DATE, crc32, field, field, len(raw), len(extra))
    return head + raw + extra


def central_header(name: str, size: int, crc32: int, offset: int) -> bytes:
    """Return the canonical directory entry of a stored file: mode 0644, made on Unix, 1980-01-01."""
    raw = name.encode()
    wide: list[int] = []
    if size >= LIMIT32:
        wide += [size, size]
        size = LIMIT32
    if offset >= LIMIT32:
        wide.append(offset)
        offset = LIMIT32
    extra = struct.pack(f"<2H{len(wide)}Q", _ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    needed = _ZIP64 if wide else _PLAIN
    head = CENTRAL.pack(
        CENTRAL_SIGNATURE, _UNIX | needed, needed, _flags(raw), STORED, 0, _DATE, crc32, size, size,
        len(raw), len(extra), 0, 0, 0, _MODE, offset,
    )  # fmt: skip
    return head + raw + extra


def end_records(entries: int, size: int, offset: int) -> bytes:
    """Return what ends a canonical archive whose directory has ``size`` bytes from ``offset`` on."""
    wide = b""
    if entries >= _LIMIT16 or size >= LIMIT32 or offset >= LIMIT32:
        wide = _END64.pack(
            _END64_SIGNATURE, _END64.size - 12, _UNIX | _ZIP64, _ZIP64, 0, 0, entries, entries, size, offset
        ) + _LOCATOR64.pack(_LOCATOR64_SIGNATURE, 0, offset + size, 1)
    return wide + END.pack(
        _END_SIGNATURE, 0, 0, min(entries, _LIMIT16), min(entries, _LIMIT16), min(size, LIMIT32),
        min(offset, LIMIT32), 0,
    )  # fmt: skip


def write_archive(out: BinaryIO, entries: Iterable[Entry], tick: Callable[[int], None]) -> None:
    """Write ``entries``, given in any order, as a canonical archive to the empty, seekable ``out``.

    The CRC of a file stands before its data and is known after it, so each local header is written
    twice; no data descriptor is needed, and one parser reads what the other reads. ``tick`` is told the bytes of each
    chunk written.

    Raises:
        InvalidArchive: A source cannot be read or changed meanwhile.
    """
    directory: list[bytes] = []
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
        directory.append(central_header(entry.name, size, crc32, offset))
        offset = end
    listed = b"".join(directory)
    out.write(listed + end_records(len(directory), len(listed), offset))


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


def decode(name: bytes, flags: int) -> str:
    """Decode as both readers do: they agree on ASCII, and on UTF-8 that is marked as such."""
    whose = f"entry {shown(name.decode('latin-1'))}"
    if not name.isascii() and not flags & _UTF8_FLAG:
        raise InvalidArchive(f"{whose} has a name in an encoding that it does not tell")
    try:
        return name.decode()
    except UnicodeDecodeError as exc:
        raise InvalidArchive(f"{whose} has a name that is not UTF-8") from exc


def check_features(name: str, needed: int, flags: int, method: int) -> None:
    if flags & _ENCRYPTED:
        raise InvalidArchive(f"entry {shown(name)} is encrypted")
    if flags & _DESCRIPTOR:
        raise InvalidArchive(f"entry {shown(name)} tells its size only after its data: pack it again")
    if flags & ~(_LEVEL | _UTF8_FLAG) or needed & 0xFF > 45:
        raise InvalidArchive(f"entry {shown(name)} uses a zip feature that TorchServe does not know")
    if method not in (STORED, _DEFLATED):
        raise InvalidArchive(f"entry {shown(name)} is compressed by method {method}: TorchServe knows 0 and 8")


def check_attributes(name: str, system: int, attributes: int) -> None:
    mode = attributes >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise InvalidArchive(f"entry {shown(name)} is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > name.endswith("/"):
        raise InvalidArchive(f"entry {shown(name)} is not a regular file (made on system {system})")


def zip64_field(name: str, extra: bytes) -> bytes:
    """Return the zip64 field's content, or nothing."""
    found = b""
    while len(extra) >= 4:
        kind, length = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if length > len(extra) - 4:
            raise InvalidArchive(f"entry {shown(name)} has a broken extra field")
        if kind == _UNICODE_PATH:
            raise InvalidArchive(f"entry {shown(name)} has a second name")
        if kind == _ZIP64_EXTRA:
            if found:
                raise InvalidArchive(f"entry {shown(name)} tells its zip64 sizes twice")
            found = extra[4 : 4 + length]
        extra = extra[4 + length :]
    return found


def inflate(raw: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Unpack in bounded steps; the stream must end where the entry ends."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for chunk in raw:
            left = chunk
            while left and not inflater.eof:
                yield inflater.decompress(left, CHUNK_BYTES)
                left = inflater.unconsumed_tail
            if left or inflater.unused_data:
                raise InvalidArchive(f"entry {shown(name)} has bytes after its compressed data")
        while not inflater.eof:
            more = inflater.decompress(b"", CHUNK_BYTES)
            if not more:
                raise InvalidArchive(f"entry {shown(name)} ends before its compressed data does")
            yield more
    except zlib.error as exc:
        raise InvalidArchive(f"entry {shown(name)} is damaged: it does not unpack") from exc


def check_end(tail: bytes, count: int, size: int, start: int) -> None:
    """Accept end records that say the same as ours, with or without zip64."""
    if tail.startswith(_END64_SIGNATURE):
        end64 = _END64.size + _LOCATOR64.size
        if len(tail) < end64 + END.size:
            raise InvalidArchive("is cut short: its end record is missing")
        wide = _END64.unpack_from(tail)
        locator = _LOCATOR64.unpack_from(tail, _END64.size)
        if wide[1] != _END64.size - 12 or wide[4:] != (0, 0, count, count, size, start):
            raise InvalidArchive("has a zip64 end record that does not describe its directory")
        if locator != (_LOCATOR64_SIGNATURE, 0, start + size, 1):
            raise InvalidArchive("has a zip64 locator that points elsewhere")
        tail = tail[end64:]
    if len(tail) < END.size or not tail.startswith(_END_SIGNATURE):
        raise InvalidArchive("is cut short, or has other bytes where its end record should be")
    _, disk, first, here, entries, length, offset, comment = END.unpack_from(tail)
    if (disk, first, here, entries, length, offset) != (0, 0, count, count, size, start):
        raise InvalidArchive("has an end record that does not describe its directory")
    if comment or len(tail) != END.size:
        raise InvalidArchive(f"has {max(comment, len(tail) - END.size)} bytes after its end")
