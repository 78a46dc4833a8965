"""The other formats of torch-model-archiver, `tgz` and `no-archive`: written deterministically, read as if a `.mar`.

TorchServe 0.12 loads a directory and a `.mar`, and a pod is given a `.mar` alone. Both formats may be anybody's: links,
names that leave the archive, what is no regular file, and bombs are refused while they are read.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from marway.archives.entries import (
    CHUNK_BYTES,
    MANIFEST_NAME,
    MAX_ENTRIES,
    Entry,
    canonical_order,
    check_name,
    check_no_collisions,
    from_file,
    open_regular,
    reason,
    shown,
)
from marway.archives.rules import expansion_problem
from marway.archives.zipformat import write_archive
from marway.errors import InvalidArchive

__all__ = ["as_mar", "is_other_format", "write_directory", "write_tgz"]

_GZIP: Final = b"\x1f\x8b"
_EPOCH: Final = 315_532_800  # 1980-01-01 UTC, as in the zip
_BLOCK: Final = 65_535


def is_other_format(path: Path) -> bool:
    """Return whether ``path`` is a directory with a manifest (`no-archive`), or a file that begins as gzip does."""
    if not path.is_file():
        return (path / MANIFEST_NAME).is_file()
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(2) == _GZIP


@contextmanager
def as_mar(path: Path) -> Iterator[BinaryIO]:
    """Give a directory's or a tgz's files as a canonical `.mar`, open for reading; it is gone afterwards.

    Raises:
        InvalidArchive: It holds what an archive may not, or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="marway-archive-") as name:
        target = Path(name) / "archive.mar"
        if path.is_dir():
            entries = _of_directory(path)
        else:
            (Path(name) / "files").mkdir()
            entries = _of_tgz(path, Path(name) / "files")
        if len(entries) > MAX_ENTRIES:
            raise InvalidArchive(f"{path}: has more than {MAX_ENTRIES} entries")
        try:
            check_no_collisions(entries)
            with target.open("w+b") as file:
                write_archive(file, entries.values(), lambda _: None)
                file.flush()
                yield file
        except OSError as exc:
            raise InvalidArchive(f"{path} cannot be read as an archive: {reason(exc)}") from exc


def _of_directory(root: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name, below, files in os.walk(root):
        directory = Path(name)
        for each in (*below, *files):
            if (directory / each).is_symlink():
                raise InvalidArchive(f"{directory / each} is a symbolic link: copy what it points to there (cp -L)")
        for file in files:
            path = directory / file
            relative = check_name(path.relative_to(root).as_posix())
            entries[relative] = from_file(relative, path)
    return entries


def _of_tgz(path: Path, target: Path) -> dict[str, Entry]:
    """Unpack a tgz into ``target``, each file under a number, and return its entries without the one top directory."""
    unpacked: dict[str, Path] = {}
    with os.fdopen(open_regular(path), "rb") as raw:
        try:
            with tarfile.open(fileobj=cast("BinaryIO", _Bounded(raw)), mode="r|") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if member.isdir():
                        continue
                    if not member.isreg():
                        raise InvalidArchive(f"entry {shown(name)} is not a regular file")
                    check_name(name)
                    if name in unpacked:
                        raise InvalidArchive(f"{shown(name)} is there twice")
                    if len(unpacked) == MAX_ENTRIES:
                        raise InvalidArchive(f"has more than {MAX_ENTRIES} entries")
                    source = tar.extractfile(member)
                    assert source is not None
                    unpacked[name] = target / str(len(unpacked))
                    with unpacked[name].open("xb") as file:
                        shutil.copyfileobj(source, file, CHUNK_BYTES)
        except InvalidArchive as exc:
            raise InvalidArchive(f"{path}: {exc.message}") from exc
        except EOFError as exc:
            raise InvalidArchive(f"{path}: is cut short") from exc
        except (tarfile.TarError, zlib.error, gzip.BadGzipFile, ValueError) as exc:
            raise InvalidArchive(f"{path}: is not a .mar, nor a .tar.gz that can be read: {exc}") from exc
    # What stands before every name: the model's directory, as torch-model-archiver has it, or nothing.
    tops = (name.removesuffix(MANIFEST_NAME) for name in unpacked if name.endswith(MANIFEST_NAME))
    top = next((top for top in tops if top.count("/") <= 1), None)
    if top is None:
        raise InvalidArchive(f"{path}: has no {MANIFEST_NAME}: it is no model archive")
    if not all(name.startswith(top) for name in unpacked):
        raise InvalidArchive(f"has files beside {top}")
    return {name.removeprefix(top): from_file(name.removeprefix(top), file) for name, file in unpacked.items()}


class _Bounded:
    """What a gzip file holds, read forward; no more than an archive may unpack to."""

    def __init__(self, raw: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=raw)
        self._size = os.fstat(raw.fileno()).st_size
        self._read = 0

    def read(self, length: int) -> bytes:
        data = self._file.read(length)
        self._read += len(data)
        problem = expansion_problem(self._size, self._read)
        if problem is not None:
            raise InvalidArchive(problem)
        return data


def write_tgz(out: BinaryIO, entries: Iterable[Entry], top: str, tick: Callable[[int], None]) -> None:
    """Write a gzipped tar with all ``entries`` below the directory ``top``.

    Times, owners and modes are fixed; the gzip stream holds stored blocks, for what zlib makes of data
    differs between its builds.
    """
    size = 0

    def tar() -> Iterator[bytes]:
        for entry in sorted(entries, key=lambda entry: canonical_order(entry.name)):
            info = tarfile.TarInfo(f"{top}/{entry.name}")
            info.size, info.mode, info.mtime = entry.size, 0o644, _EPOCH
            yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
            for chunk in entry.chunks():
                yield chunk
                tick(len(chunk))
            yield bytes(-entry.size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)
        yield bytes(-size % tarfile.RECORDSIZE)

    # Gzip (RFC 1952) of stored deflate blocks (RFC 1951, 3.2.4), with no name and no time.
    out.write(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff")
    pending = b""
    crc32 = 0
    for data in tar():
        crc32 = zlib.crc32(data, crc32)
        size += len(data)
        pending += data
        start = 0
        while len(pending) - start > _BLOCK:
            out.write(_block(pending[start : start + _BLOCK], last=False))
            start += _BLOCK
        pending = pending[start:]
    out.write(_block(pending, last=True) + struct.pack("<2I", crc32, size & 0xFFFFFFFF))


def _block(data: bytes, *, last: bool) -> bytes:
    return struct.pack("<B2H", last, len(data), len(data) ^ 0xFFFF) + data


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
