"""Single fields of zip entries that may be anybody's: accepted only where all readers take them alike."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator

from marway.errors import InvalidArchive
from marway_archiver.format import zipformat as z
from marway_archiver.format.entries import CHUNK_BYTES
from marway_archiver.format.names import shown

__all__ = ["check_attributes", "check_end", "check_features", "decode", "inflate", "zip64_field"]

_ENCRYPTED, _DESCRIPTOR, _LEVEL = 1, 8, 6  # flag bits; the last are hints of the compressor
_UNICODE_PATH = 0x7075


def decode(name: bytes, flags: int) -> str:
    """Decode as both readers do: they agree on ASCII, and on UTF-8 that is marked as such."""
    if not name.isascii() and not flags & z.UTF8_FLAG:
        raise InvalidArchive(f"entry {_shown_bytes(name)} has a name in an encoding that it does not tell")
    try:
        return name.decode()
    except UnicodeDecodeError as exc:
        raise InvalidArchive(f"entry {_shown_bytes(name)} has a name that is not UTF-8") from exc


def _shown_bytes(name: bytes) -> str:
    return shown(name.decode("latin-1"))


def check_features(name: str, needed: int, flags: int, method: int) -> None:
    if flags & _ENCRYPTED:
        raise InvalidArchive(f"entry {shown(name)} is encrypted")
    if flags & _DESCRIPTOR:
        raise InvalidArchive(f"entry {shown(name)} tells its size only after its data: pack it again")
    if flags & ~(_LEVEL | z.UTF8_FLAG) or needed & 0xFF > 45:
        raise InvalidArchive(f"entry {shown(name)} uses a zip feature that TorchServe does not know")
    if method not in (z.STORED, z.DEFLATED):
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
        if kind == z.ZIP64_EXTRA:
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
            while left:
                if inflater.eof:
                    raise InvalidArchive(f"entry {shown(name)} has bytes after its compressed data")
                yield inflater.decompress(left, CHUNK_BYTES)
                left = inflater.unconsumed_tail
            if inflater.unused_data:
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
    if tail.startswith(z.END64_SIGNATURE):
        end64 = z.END64.size + z.LOCATOR64.size
        if len(tail) < end64 + z.END.size:
            raise InvalidArchive("is cut short: its end record is missing")
        wide = z.END64.unpack_from(tail)
        locator = z.LOCATOR64.unpack_from(tail, z.END64.size)
        if wide[1] != z.END64.size - 12 or wide[4:] != (0, 0, count, count, size, start):
            raise InvalidArchive("has a zip64 end record that does not describe its directory")
        if locator != (z.LOCATOR64_SIGNATURE, 0, start + size, 1):
            raise InvalidArchive("has a zip64 locator that points elsewhere")
        tail = tail[end64:]
    if len(tail) < z.END.size or not tail.startswith(z.END_SIGNATURE):
        raise InvalidArchive("is cut short, or has other bytes where its end record should be")
    _, disk, first, here, entries, length, offset, comment = z.END.unpack_from(tail)
    if (disk, first, here, entries, length, offset) != (0, 0, count, count, size, start):
        raise InvalidArchive("has an end record that does not describe its directory")
    if comment or len(tail) != z.END.size:
        raise InvalidArchive(f"has {max(comment, len(tail) - z.END.size)} bytes after its end")
