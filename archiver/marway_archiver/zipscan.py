"""Reads an archive from its first byte to its last, exactly as both of its readers do, and compares them.

Java's `ZipInputStream`, which TorchServe unpacks with, walks the local headers and stops at the first
thing that is none; Python's `zipfile` believes the directory at the end. An archive is accepted only if
every byte belongs to a local entry, the directory, or the end records, and both name the same files with
the same sizes, CRCs and order. One pass gives that, all CRCs and the digest of the whole.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from marway.archives.bounds import expansion_problem
from marway.errors import InvalidArchive
from marway_archiver import zipformat as z
from marway_archiver.entries import CHUNK_BYTES
from marway_archiver.names import MAX_ENTRIES, canonical_order, check_name, check_no_collisions, shown
from marway_archiver.zipfields import (
    check_attributes,
    check_end,
    check_features,
    decode,
    inflate,
    zip64_field,
)

__all__ = ["ArchiveFile", "Scan", "read_file", "scan"]

_MAX_DIRECTORY_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file in an archive: sizes in bytes, CRC-32, and where its data begins in the archive."""

    name: str
    size: int
    compressed_size: int
    crc32: int
    stored: bool
    data_offset: int


@dataclass(slots=True)
class Scan:
    """What a scan found; of one that failed, what it found until then."""

    files: list[ArchiveFile] = field(default_factory=list)
    canonical: bool = True
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Local:
    offset: int
    name: bytes
    flags: int
    method: int
    crc32: int
    compressed: int
    size: int


class _Reader:
    """Reads forward only; knows its position and digests all it reads."""

    def __init__(self, file: BinaryIO, tick: Callable[[int], None]) -> None:
        file.seek(0)
        self._file = file
        self._tick = tick
        self.digest = hashlib.sha256()
        self.position = 0

    def take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise InvalidArchive("is cut short: it ends in the middle of an entry or of its directory")
        self.digest.update(data)
        self.position += length
        self._tick(length)
        return data

    def chunks(self, length: int) -> Iterator[bytes]:
        while length:
            data = self.take(min(length, CHUNK_BYTES))
            length -= len(data)
            yield data


def scan(file: BinaryIO, into: Scan, tick: Callable[[int], None] = lambda _: None) -> None:
    """Read the whole of ``file`` and note in ``into`` what it holds.

    Args:
        file: Open for reading, seekable.
        into: Filled as the scan goes on.
        tick: Called with the bytes of each part read.

    Raises:
        InvalidArchive: It is no archive, or one that its two readers could read differently, that unpacks
            outside its directory, that is encrypted, damaged or a bomb.
    """
    into.size = os.fstat(file.fileno()).st_size
    reader = _Reader(file, tick)
    if into.size < z.END.size or file.read(4) != z.LOCAL_SIGNATURE:
        raise InvalidArchive("is not a .mar: it does not begin as a zip archive with an entry does")
    file.seek(0)
    walk = _Walk(reader, into)
    signature = reader.take(4)
    while signature == z.LOCAL_SIGNATURE:
        walk.entry()
        signature = reader.take(4)
    check_no_collisions(local.name.decode() for local in walk.locals)
    walk.directory(signature)
    if reader.position != into.size:
        raise InvalidArchive(f"has {into.size - reader.position} bytes after its end")
    names = [each.name for each in into.files]
    into.canonical &= names == sorted(names, key=canonical_order)
    into.sha256 = reader.digest.hexdigest()


class _Walk:
    def __init__(self, reader: _Reader, into: Scan) -> None:
        self.reader = reader
        self.into = into
        self.locals: list[_Local] = []
        self.expanded = 0

    def entry(self) -> None:
        """Read one local entry whose signature was read."""
        if len(self.locals) == MAX_ENTRIES:
            raise InvalidArchive(f"has more than {MAX_ENTRIES} entries")
        offset = self.reader.position - 4
        head = self.reader.take(z.LOCAL.size - 4)
        _, needed, flags, method, _, _, crc32, compressed, size, name_len, extra_len = z.LOCAL.unpack(
            z.LOCAL_SIGNATURE + head
        )
        name = self.reader.take(name_len)
        extra = self.reader.take(extra_len)
        text = decode(name, flags)
        check_name(text.removesuffix("/"))
        check_features(text, needed, flags, method)
        if z.LIMIT32 in (compressed, size):
            wide = zip64_field(text, extra)
            if len(wide) < 16:
                raise InvalidArchive(f"entry {shown(text)} has no zip64 sizes where they are needed")
            size, compressed = int.from_bytes(wide[:8], "little"), int.from_bytes(wide[8:16], "little")
        local = _Local(offset, name, flags, method, crc32, compressed, size)
        self.locals.append(local)
        if z.LOCAL_SIGNATURE + head + name + extra != z.local_header(text, size, crc32):
            self.into.canonical = False
        self._data(text, local)

    def _data(self, name: str, local: _Local) -> None:
        start = self.reader.position
        if start + local.compressed > self.into.size:
            raise InvalidArchive(f"is cut short: entry {shown(name)} is longer than the file")
        if local.method == z.STORED and local.compressed != local.size:
            raise InvalidArchive(f"entry {shown(name)} is stored, and says that it has two sizes")
        self._expand(local.size)
        if name.endswith("/"):
            if local.size:
                raise InvalidArchive(f"directory {shown(name)} has content")
            self.into.canonical = False
        stored = local.method == z.STORED
        raw = self.reader.chunks(local.compressed)
        crc32 = size = 0
        for chunk in raw if stored else inflate(raw, name):
            crc32 = zlib.crc32(chunk, crc32)
            size += len(chunk)
            if size > local.size:
                break
        if size != local.size:
            raise InvalidArchive(f"entry {shown(name)} unpacks to another size than it says")
        if crc32 != local.crc32:
            raise InvalidArchive(f"entry {shown(name)} is damaged: its CRC does not match")
        if not name.endswith("/"):
            file = ArchiveFile(name, size, local.compressed, crc32, stored, start)
            self.into.files.append(file)

    def _expand(self, size: int) -> None:
        self.expanded += size
        problem = expansion_problem(self.into.size, self.expanded)
        if problem is not None:
            raise InvalidArchive(problem)

    def directory(self, signature: bytes) -> None:
        """Read the directory, whose first signature was read, and the end records; compare all."""
        start = self.reader.position - 4
        if self.into.size - start > _MAX_DIRECTORY_BYTES:
            raise InvalidArchive("has bytes between its entries and its directory, or no directory")
        for local in self.locals:
            if signature != z.CENTRAL_SIGNATURE:
                raise InvalidArchive(
                    f"entry {shown(decode(local.name, local.flags))} is hidden: it is there, but not in the "
                    "directory, or other bytes stand between"
                )
            self._central(local)
            signature = self.reader.take(4)
        if signature == z.CENTRAL_SIGNATURE:
            raise InvalidArchive("has an entry in its directory that is hidden from whoever reads it forward")
        size = self.reader.position - 4 - start
        tail = signature + self.reader.take(min(self.into.size - self.reader.position, 4096))
        count = len(self.locals)
        expected = z.end_records(count, size, start)
        if tail != expected:
            self.into.canonical = False
            check_end(tail, count, size, start)

    def _central(self, local: _Local) -> None:
        head = self.reader.take(z.CENTRAL.size - 4)
        (
            _, made_by, _, flags, method, _, _, crc32, compressed, size, name_len, extra_len, comment_len, disk,
            _, attributes, offset,
        ) = z.CENTRAL.unpack(z.CENTRAL_SIGNATURE + head)  # fmt: skip
        name = self.reader.take(name_len)
        extra = self.reader.take(extra_len)
        comment = self.reader.take(comment_len)
        text = decode(local.name, local.flags)
        wide = zip64_field(text, extra)
        numbers: list[int] = []
        for value in (size, compressed, offset):
            if value == z.LIMIT32:
                if len(wide) < 8:
                    raise InvalidArchive(f"entry {shown(text)} has no zip64 sizes where they are needed")
                value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
            numbers.append(value)
        found = (name, flags, method, crc32, numbers[1], numbers[0], numbers[2], disk)
        there = (local.name, local.flags, local.method, local.crc32, local.compressed, local.size, local.offset, 0)
        if found != there:
            raise InvalidArchive(
                f"entry {shown(text)} is hidden or forged: the directory says something else about it, or "
                "lists it elsewhere"
            )
        check_attributes(text, made_by >> 8, attributes)
        placed = z.Placed(text, local.size, local.crc32, local.offset)
        if z.CENTRAL_SIGNATURE + head + name + extra + comment != z.central_header(placed):
            self.into.canonical = False


def read_file(file: BinaryIO, found: ArchiveFile) -> Iterator[bytes]:
    """Yield the content of a file that `scan` found, checking size and CRC again.

    Raises:
        InvalidArchive: The archive changed since it was scanned.
    """

    def raw() -> Iterator[bytes]:
        position, left = found.data_offset, found.compressed_size
        while left:
            data = os.pread(file.fileno(), min(left, CHUNK_BYTES), position)
            if not data:
                return
            position, left = position + len(data), left - len(data)
            yield data

    crc32 = size = 0
    for chunk in raw() if found.stored else inflate(raw(), found.name):
        crc32 = zlib.crc32(chunk, crc32)
        size += len(chunk)
        yield chunk
    if size != found.size or crc32 != found.crc32:
        raise InvalidArchive(f"entry {shown(found.name)} changed while it was being read")
