"""The other formats of torch-model-archiver, `tgz` and `no-archive`, read as if they were a `.mar`.

TorchServe 0.12 loads a directory and a `.mar`, and a pod is given a `.mar` alone. Both formats may be anybody's: links,
names that leave the archive, what is no regular file, and bombs are refused while they are read.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from marway.archives.bounds import expansion_problem
from marway.errors import InvalidArchive
from marway_archiver.entries import CHUNK_BYTES, Entry, from_file, open_regular, reason
from marway_archiver.names import MANIFEST_NAME, MAX_ENTRIES, check_name, check_no_collisions, shown
from marway_archiver.zipwriter import write_archive

__all__ = ["as_mar", "is_directory_archive", "is_tgz"]

_GZIP: Final = b"\x1f\x8b"


def is_directory_archive(path: Path) -> bool:
    """Return whether ``path`` is a directory as `--archive-format no-archive` writes one."""
    return (path / MANIFEST_NAME).is_file()


def is_tgz(path: Path) -> bool:
    """Return whether ``path`` is a regular file that begins as gzip does."""
    if not path.is_file():
        return False
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
            with tarfile.open(fileobj=cast("BinaryIO", _Inflated(raw)), mode="r|") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if member.isdir():
                        continue
                    if not member.isreg():
                        raise InvalidArchive(f"{path}: entry {shown(name)} is not a regular file")
                    check_name(name)
                    if name in unpacked:
                        raise InvalidArchive(f"{path}: {shown(name)} is there twice")
                    if len(unpacked) == MAX_ENTRIES:
                        raise InvalidArchive(f"{path}: has more than {MAX_ENTRIES} entries")
                    source = tar.extractfile(member)
                    assert source is not None
                    unpacked[name] = target / str(len(unpacked))
                    with unpacked[name].open("xb") as file:
                        while chunk := source.read(CHUNK_BYTES):
                            file.write(chunk)
        except InvalidArchive as exc:
            raise exc if exc.message.startswith(str(path)) else InvalidArchive(f"{path}: {exc.message}") from exc
        except (tarfile.TarError, zlib.error, EOFError, ValueError) as exc:
            raise InvalidArchive(f"{path}: is not a .mar, nor a .tar.gz that can be read: {exc}") from exc
    top = _top(unpacked)
    if top is None:
        raise InvalidArchive(f"{path}: has no {MANIFEST_NAME}: it is no model archive")
    return {
        name.removeprefix(top): from_file(name.removeprefix(top), file)
        for name, file in unpacked.items()
        if name.startswith(top)
    }


def _top(names: Mapping[str, Path]) -> str | None:
    """Return what stands before every name: the model's directory, as torch-model-archiver has it, or nothing."""
    for name in names:
        head, found, tail = name.rpartition(MANIFEST_NAME)
        if found and not tail and head.count("/") <= 1:
            if not all(each.startswith(head) for each in names):
                raise InvalidArchive(f"has files beside {head}")
            return head
    return None


class _Inflated:
    """What a gzip file holds, read forward; no more than an archive may unpack to."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._size = os.fstat(raw.fileno()).st_size
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._read = 0

    def read(self, length: int) -> bytes:
        parts: list[bytes] = []
        wanted = length
        while wanted > 0 and not self._inflater.eof:
            raw = self._inflater.unconsumed_tail or self._raw.read(CHUNK_BYTES)
            if not raw:
                raise InvalidArchive("is cut short")
            part = self._inflater.decompress(raw, min(wanted, CHUNK_BYTES))
            self._read += len(part)
            problem = expansion_problem(self._size, self._read)
            if problem is not None:
                raise InvalidArchive(problem)
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)
