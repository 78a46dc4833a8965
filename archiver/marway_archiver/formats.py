"""The archive formats besides `.mar`: `tgz` and `no-archive`, deterministic as well."""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from marway_archiver.format.entries import Entry
from marway_archiver.format.names import canonical_order

__all__ = ["write_directory", "write_tgz"]

_EPOCH = 315_532_800  # 1980-01-01 UTC, as in the zip
_BLOCK = 65_535


def write_tgz(out: BinaryIO, entries: Iterable[Entry], top: str, tick: Callable[[int], None]) -> None:
    """Write a gzipped tar with all ``entries`` below the directory ``top``.

    Times, owners and modes are fixed; the gzip stream holds stored blocks, for what zlib makes of data
    differs between its builds.
    """
    gzip = _StoredGzip(out)
    for entry in sorted(entries, key=lambda entry: canonical_order(entry.name)):
        info = tarfile.TarInfo(f"{top}/{entry.name}")
        info.size, info.mode, info.mtime = entry.size, 0o644, _EPOCH
        gzip.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        for chunk in entry.chunks():
            gzip.write(chunk)
            tick(len(chunk))
        gzip.write(bytes(-entry.size % tarfile.BLOCKSIZE))
    gzip.write(bytes(2 * tarfile.BLOCKSIZE))
    gzip.write(bytes(-gzip.size % tarfile.RECORDSIZE))
    gzip.close()


def write_directory(directory: Path, entries: Iterable[Entry], tick: Callable[[int], None]) -> tuple[str, int]:
    """Write ``entries`` as files below ``directory``, each on the disk when this returns.

    Returns:
        The sha256 (hex) of the lines ``SHA256  NAME``, one a file in canonical order; and all files' bytes.
    """
    lines: list[str] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: canonical_order(entry.name)):
        path = directory / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("xb") as file:
            for chunk in entry.chunks():
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                tick(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        lines.append(f"{digest.hexdigest()}  {entry.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest(), size


class _StoredGzip:
    """Writes gzip (RFC 1952) of stored deflate blocks (RFC 1951, 3.2.4), with no name and no time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._pending = bytearray()
        self._crc = 0
        self.size = 0
        out.write(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff")

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self.size += len(data)
        self._pending += data
        start = 0
        while len(self._pending) - start > _BLOCK:
            self._block(self._pending[start : start + _BLOCK], last=False)
            start += _BLOCK
        del self._pending[:start]

    def close(self) -> None:
        self._block(self._pending, last=True)
        self._out.write(struct.pack("<2I", self._crc, self.size & 0xFFFFFFFF))

    def _block(self, data: bytearray, *, last: bool) -> None:
        self._out.write(struct.pack("<B2H", last, len(data), len(data) ^ 0xFFFF) + data)
