"""Writes canonical archives.

Everything is stored, nothing deflated: weights do not compress, and what zlib makes of text differs
between its builds (zlib, zlib-ng, Cloudflare's), so that only stored bytes are the same everywhere.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import BinaryIO

from marway.errors import InvalidArchive
from marway_archiver.format.entries import CHUNK_BYTES, Entry
from marway_archiver.format.names import canonical_order
from marway_archiver.format.zipformat import Placed, central_header, end_records, local_header

__all__ = ["file_digest", "write_archive"]


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
