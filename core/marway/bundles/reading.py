"""Reads a bundle's structure: every header must be the one that packing its files again would write."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from marway.archives import zipformat as z
from marway.archives.entries import (
    BUNDLE_MANIFEST_NAME,
    CHUNK_BYTES,
    MAX_ENTRIES,
    canonical_order,
    check_name,
    check_no_collisions,
    open_regular,
    shown,
)
from marway.bundles.manifest import MAX_MANIFEST_BYTES, BundleManifest, parse_manifest
from marway.errors import InvalidArchive

__all__ = ["Bundle", "BundleFile", "content_of", "files_of", "is_bundle", "opened_bundle", "read_bundle"]

_NOT_PACKED = "pack its directory with `marway pack --backend NAME --directory DIR`"
_EXAMPLES = "MARWAY-INF/examples/"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file in a bundle: its size in bytes, CRC-32, and where its data begins."""

    name: str
    size: int
    crc32: int
    offset: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle: what it says of itself, and its files in their order, the manifest first."""

    file: BinaryIO
    manifest: BundleManifest
    files: tuple[BundleFile, ...]


def is_bundle(path: Path) -> bool:
    """Return whether a file begins as a bundle does; whether it is a sound one, `read_bundle` says.

    Raises:
        InvalidArchive: There is no file that could be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        head = file.read(z.LOCAL.size + len(BUNDLE_MANIFEST_NAME))
    return head.startswith(z.LOCAL_SIGNATURE) and head[z.LOCAL.size :] == BUNDLE_MANIFEST_NAME.encode()


def read_bundle(path: Path) -> BundleManifest:
    """Return what a bundle says of itself; its files' names and places are checked, their contents are not read.

    Raises:
        InvalidArchive: There is no file that could be read, or it is not a bundle as packing writes one.
    """
    with opened_bundle(path) as bundle:
        return bundle.manifest


@contextmanager
def opened_bundle(path: Path) -> Iterator[Bundle]:
    """Give a bundle to read, its structure checked.

    Raises:
        InvalidArchive: As `read_bundle`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            found = files_of(file, advice=_NOT_PACKED)
            if not found or found[0].name != BUNDLE_MANIFEST_NAME:
                raise InvalidArchive(f"has no {BUNDLE_MANIFEST_NAME}: it is no bundle; {_NOT_PACKED}")
            if found[0].size > MAX_MANIFEST_BYTES:
                raise InvalidArchive(f"{BUNDLE_MANIFEST_NAME} has more than {MAX_MANIFEST_BYTES} bytes")
            manifest = parse_manifest(b"".join(content_of(file, found[0])))
            for each in found[1:]:
                if not each.name.startswith((f"{manifest.root}/", _EXAMPLES)):
                    raise InvalidArchive(f"{shown(each.name)} lies outside of its root {shown(manifest.root)}")
            check_no_collisions(each.name for each in found)
        except InvalidArchive as exc:
            raise InvalidArchive(f"{path}: {exc.message}") from exc
        yield Bundle(file, manifest, tuple(found))


def content_of(file: BinaryIO, found: BundleFile) -> Iterator[bytes]:
    """Yield a file's content in chunks; its CRC is checked at the end.

    Raises:
        InvalidArchive: It is damaged, or the bundle changed since it was opened.
    """
    position, left, crc32 = found.offset, found.size, 0
    while left:
        data = os.pread(file.fileno(), min(left, CHUNK_BYTES), position)
        if not data:
            break
        crc32 = zlib.crc32(data, crc32)
        position, left = position + len(data), left - len(data)
        yield data
    if left or crc32 != found.crc32:
        raise InvalidArchive(f"{shown(found.name)} is damaged: its CRC does not match")


def files_of(file: BinaryIO, *, what: str = "bundles", advice: str, files_max: int = MAX_ENTRIES) -> list[BundleFile]:
    """Return the files whose headers, in their order, make the whole of ``file`` with the directory after them.

    Args:
        file: What `marway.archives.zipformat.write_archive` has written: nothing else passes.
        what: What such files are called, for messages.
        advice: What to do about a file that is something else, for messages.
        files_max: Most files in it.

    Raises:
        InvalidArchive: It is damaged, cut short, or of anybody else's making.
    """
    size = os.fstat(file.fileno()).st_size
    found: list[BundleFile] = []
    directory: list[bytes] = []
    offset = 0
    while (head := os.pread(file.fileno(), z.LOCAL.size, offset)).startswith(z.LOCAL_SIGNATURE):
        if len(found) == files_max:
            raise InvalidArchive(f"has more than {files_max} files")
        each = _entry(file, head, offset, f"as Marway writes {what}; {advice}")
        if each.offset + each.size > size:
            raise InvalidArchive(f"is cut short: {shown(each.name)} is longer than the file")
        if found and canonical_order(each.name) <= canonical_order(found[-1].name):
            raise InvalidArchive(f"{shown(each.name)} is there twice, or not in its place; {advice}")
        directory.append(z.central_header(each.name, each.size, each.crc32, offset))
        found.append(each)
        offset = each.offset + each.size
    listed = b"".join(directory)
    end = listed + z.end_records(len(found), len(listed), offset)
    if not found or os.pread(file.fileno(), len(end), offset) != end or size != offset + len(end):
        raise InvalidArchive(f"is damaged, or not as Marway writes {what}; {advice}")
    return found


def _entry(file: BinaryIO, head: bytes, offset: int, how: str) -> BundleFile:
    """Return the file whose local header begins at ``offset``."""
    if len(head) < z.LOCAL.size:
        raise InvalidArchive("is cut short")
    _, _, flags, _, _, _, crc32, _, size, name_len, extra_len = z.LOCAL.unpack(head)
    rest = os.pread(file.fileno(), name_len + extra_len, offset + z.LOCAL.size)
    name = check_name(z.decode(rest[:name_len], flags))
    if size == z.LIMIT32:
        size = int.from_bytes(z.zip64_field(name, rest[name_len:])[:8], "little")
    if head + rest != z.local_header(name, size, crc32):
        raise InvalidArchive(f"{shown(name)} is not stored {how}")
    return BundleFile(name, size, crc32, offset + z.LOCAL.size + len(rest))
