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
from typing import BinaryIO, NamedTuple

from marway.archives import zipformat as z
from marway.archives.entries import (
    CHUNK_BYTES,
    MAX_ENTRIES,
    canonical_order,
    check_name,
    check_no_collisions,
    shown,
)
from marway.archives.rules import expansion_problem
from marway.errors import InvalidArchive

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


class _Header(NamedTuple):
    """What a local header or the directory says of an entry."""

    offset: int
    name: bytes
    flags: int
    method: int
    crc32: int
    compressed: int
    size: int


def scan(file: BinaryIO, into: Scan, tick: Callable[[int], None] = lambda _: None) -> None:
    """Read the whole of ``file`` and note in ``into`` what it holds; ``tick`` is told the bytes of each part read.

    Raises:
        InvalidArchive: It is no archive, or one that its two readers could read differently, that unpacks
            outside its directory, that is encrypted, damaged or a bomb.
    """
    into.size = os.fstat(file.fileno()).st_size
    file.seek(0)
    scanner = _Scanner(file, into, tick)
    signature = scanner.take(4) if into.size >= z.END.size else b""
    if signature != z.LOCAL_SIGNATURE:
        raise InvalidArchive("is no archive: it does not begin as a zip archive with an entry does")
    while signature == z.LOCAL_SIGNATURE:
        scanner.entry()
        signature = scanner.take(4)
    check_no_collisions(header.name.decode() for header in scanner.headers)
    scanner.directory(signature)
    if scanner.position != into.size:
        raise InvalidArchive(f"has {into.size - scanner.position} bytes after its end")
    names = [each.name for each in into.files]
    into.canonical &= names == sorted(names, key=canonical_order)
    into.sha256 = scanner.digest.hexdigest()


class _Scanner:
    """Reads forward only; knows its position and digests all it reads."""

    def __init__(self, file: BinaryIO, into: Scan, tick: Callable[[int], None]) -> None:
        self._file, self._into, self._tick = file, into, tick
        self._expanded = 0
        self.digest = hashlib.sha256()
        self.position = 0
        self.headers: list[_Header] = []

    def take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise InvalidArchive("is cut short: it ends in the middle of an entry or of its directory")
        self.digest.update(data)
        self.position += length
        self._tick(length)
        return data

    def _chunks(self, length: int) -> Iterator[bytes]:
        while length:
            data = self.take(min(length, CHUNK_BYTES))
            length -= len(data)
            yield data

    def entry(self) -> None:
        """Read one local entry whose signature was read."""
        if len(self.headers) == MAX_ENTRIES:
            raise InvalidArchive(f"has more than {MAX_ENTRIES} entries")
        offset = self.position - 4
        head = z.LOCAL_SIGNATURE + self.take(z.LOCAL.size - 4)
        _, needed, flags, method, _, _, crc32, compressed, size, name_len, extra_len = z.LOCAL.unpack(head)
        raw = self.take(name_len)
        extra = self.take(extra_len)
        name = z.decode(raw, flags)
        check_name(name.removesuffix("/"))
        z.check_features(name, needed, flags, method)
        if z.LIMIT32 in (compressed, size):
            wide = z.zip64_field(name, extra)
            if len(wide) < 16:
                raise InvalidArchive(f"entry {shown(name)} has no zip64 sizes where they are needed")
            size, compressed = int.from_bytes(wide[:8], "little"), int.from_bytes(wide[8:16], "little")
        self.headers.append(_Header(offset, raw, flags, method, crc32, compressed, size))
        if name.endswith("/") or head + raw + extra != z.local_header(name, size, crc32):
            self._into.canonical = False
        self._data(ArchiveFile(name, size, compressed, crc32, method == z.STORED, self.position))

    def _data(self, file: ArchiveFile) -> None:
        if file.data_offset + file.compressed_size > self._into.size:
            raise InvalidArchive(f"is cut short: entry {shown(file.name)} is longer than the file")
        if file.stored and file.compressed_size != file.size:
            raise InvalidArchive(f"entry {shown(file.name)} is stored, and says that it has two sizes")
        self._expanded += file.size
        problem = expansion_problem(self._into.size, self._expanded)
        if problem is not None:
            raise InvalidArchive(problem)
        if file.name.endswith("/") and file.size:
            raise InvalidArchive(f"directory {shown(file.name)} has content")
        for _ in _unpacked(self._chunks(file.compressed_size), file):
            pass
        if not file.name.endswith("/"):
            self._into.files.append(file)

    def directory(self, signature: bytes) -> None:
        """Read the directory, whose first signature was read, and the end records; compare all."""
        start = self.position - 4
        if self._into.size - start > _MAX_DIRECTORY_BYTES:
            raise InvalidArchive("has bytes between its entries and its directory, or no directory")
        for header in self.headers:
            if signature != z.CENTRAL_SIGNATURE:
                raise InvalidArchive(
                    f"entry {shown(header.name.decode())} is hidden: it is there, but not in the "
                    "directory, or other bytes stand between"
                )
            self._listed(header)
            signature = self.take(4)
        if signature == z.CENTRAL_SIGNATURE:
            raise InvalidArchive("has an entry in its directory that is hidden from whoever reads it forward")
        size = self.position - 4 - start
        tail = signature + self.take(min(self._into.size - self.position, 4096))
        count = len(self.headers)
        if tail != z.end_records(count, size, start):
            self._into.canonical = False
            z.check_end(tail, count, size, start)

    def _listed(self, local: _Header) -> None:
        """Read the next entry of the directory, which must say what the local header says."""
        head = z.CENTRAL_SIGNATURE + self.take(z.CENTRAL.size - 4)
        (
            _, made_by, _, flags, method, _, _, crc32, compressed, size, name_len, extra_len, comment_len, disk,
            _, attributes, offset,
        ) = z.CENTRAL.unpack(head)  # fmt: skip
        raw = self.take(name_len)
        extra = self.take(extra_len)
        comment = self.take(comment_len)
        name = local.name.decode()
        wide = z.zip64_field(name, extra)
        numbers: list[int] = []
        for value in (size, compressed, offset):
            if value == z.LIMIT32:
                if len(wide) < 8:
                    raise InvalidArchive(f"entry {shown(name)} has no zip64 sizes where they are needed")
                value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
            numbers.append(value)
        if disk or _Header(numbers[2], raw, flags, method, crc32, numbers[1], numbers[0]) != local:
            raise InvalidArchive(
                f"entry {shown(name)} is hidden or forged: the directory says something else about it, or "
                "lists it elsewhere"
            )
        z.check_attributes(name, made_by >> 8, attributes)
        if head + raw + extra + comment != z.central_header(name, local.size, local.crc32, local.offset):
            self._into.canonical = False


def _unpacked(raw: Iterator[bytes], file: ArchiveFile) -> Iterator[bytes]:
    """Yield what an entry's bytes unpack to, no more than it says by more than a chunk; then check size and CRC."""
    crc32 = size = 0
    for chunk in raw if file.stored else z.inflate(raw, file.name):
        crc32 = zlib.crc32(chunk, crc32)
        size += len(chunk)
        if size > file.size:
            break
        yield chunk
    if size != file.size:
        raise InvalidArchive(f"entry {shown(file.name)} unpacks to another size than it says")
    if crc32 != file.crc32:
        raise InvalidArchive(f"entry {shown(file.name)} is damaged: its CRC does not match")


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

    try:
        yield from _unpacked(raw(), found)
    except InvalidArchive as exc:
        raise InvalidArchive(f"entry {shown(found.name)} changed while it was being read") from exc
