"""An exported file as a registry that can be read: whoever copies from it copies as from any other.

Nothing is unpacked: names in the file are keys of objects and never paths here. What is not as `export` writes it, byte
for byte, is refused before anything is read of it: other compression, links, names that lead elsewhere or are there
twice, sizes and names that the manifest does not list. Digests are checked as objects are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, cast

from marway.archives.entries import open_regular, shown
from marway.bundles.reading import BundleFile, content_of, files_of
from marway.errors import InvalidArchive, InvalidRecord, InvalidSettings
from marway.objects import ObjectMissing, Progress, StoredObject
from marway.proofs.origins import CopyOrigin
from marway.registry import Registry
from marway.registry.encoding import decode
from marway.storage.exporting import EXPORT_MANIFEST, ExportManifest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Exported", "opened_export"]

_FILES_MAX: Final = 1_000_000
_MANIFEST_BYTES_MAX: Final = 256 * 1024 * 1024
_DOCUMENT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Most that is held in memory of one object: states, records, golden answers."""
_ADVICE: Final = "`marway export` writes such files"
_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_KEYS: Final = re.compile(
    rf"registry\.json|(archives|bundles|wheels)/sha256/[0-9a-f]{{64}}\.(mar|bundle|whl)|golden/[0-9a-f]{{64}}\.json"
    rf"|models/{_PART}/(state|versions/{_PART})\.json|ids/{_PART}\.json|(proofs|checks)/[0-9a-f]{{64}}/{_PART}\.json"
    rf"|contracts/{_PART}/{_PART}\.json"
)


class Exported:
    """A file's objects, as an `ObjectStore` that cannot be changed.

    Args:
        path: Where the file is, for messages.
        file: The file; it stays the caller's.

    Raises:
        InvalidArchive: It is no such file, or not as `export` writes one.
    """

    parallel_reads = False

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        try:
            self._files = {
                each.name: each for each in files_of(file, what="exported files", advice=_ADVICE, files_max=_FILES_MAX)
            }
            listed = self._files.pop(EXPORT_MANIFEST, None)
            if listed is None:
                raise InvalidArchive(f"has no {EXPORT_MANIFEST}: it is no exported file; {_ADVICE}")
            if listed.size > _MANIFEST_BYTES_MAX:
                raise InvalidArchive(f"its {EXPORT_MANIFEST} has more than {_MANIFEST_BYTES_MAX} bytes")
            self.manifest = decode(ExportManifest, b"".join(content_of(file, listed)), source=EXPORT_MANIFEST)
            self._check()
            self._names = sorted(self._files)
        except (InvalidArchive, InvalidRecord) as exc:
            raise InvalidArchive(f"{path}: {exc.message}") from exc

    def _check(self) -> None:
        listed = self.manifest.objects
        for name in sorted(self._files.keys() ^ listed.keys()):
            where = "the manifest does not list it" if name in self._files else "it is not in the file"
            raise InvalidArchive(f"{shown(name)}: {where}")
        for name, each in self._files.items():
            if not _KEYS.fullmatch(name):
                raise InvalidArchive(f"{shown(name)} is nothing that an exported file of this Marway holds")
            if each.size != listed[name].bytes:
                raise InvalidArchive(f"{shown(name)} has {each.size} bytes, and the manifest says {listed[name].bytes}")

    @property
    def origin(self) -> CopyOrigin:
        """What the history says of where its versions come from."""
        return CopyOrigin(registry=self.manifest.registry, registry_id=self.manifest.registry_id, file=self._path.name)

    @property
    def url(self) -> str:
        return str(self._path)

    def get(self, key: str) -> StoredObject:
        found = self._found(key)
        if found.size > _DOCUMENT_BYTES_MAX:
            raise InvalidRecord(f"{key} in {self._path} has more than {_DOCUMENT_BYTES_MAX} bytes")
        sha256 = self.manifest.objects[key].sha256
        data = b"".join(content_of(self._file, found))
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InvalidRecord(f"{key} in {self._path} is damaged: it has another digest than the manifest says")
        return StoredObject(data, sha256)

    def size(self, key: str) -> int | None:
        found = self._files.get(key)
        return None if found is None else found.size

    def tag(self, key: str) -> str | None:
        return self.manifest.objects[key].sha256 if key in self._files else None

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def written_at(self, key: str) -> datetime | None:
        return datetime.fromtimestamp(self._path.stat().st_mtime, timezone.utc) if key in self._files else None

    @contextlib.contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        found = self._found(key)
        end = found.size if length is None else min(found.size, start + length)
        with io.BufferedReader(_Part(self._file, found.offset, start, end)) as handle:
            yield cast("BinaryIO", handle)

    def keys(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        for place in range(bisect_left(self._names, prefix), len(self._names)):
            key = self._names[place]
            if not key.startswith(prefix):
                return
            if key > start_after:
                yield key

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        for key in self.keys(prefix):
            yield key, self._files[key].size

    def children(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        below = (key.removeprefix(prefix) for key in self.keys(prefix))
        yield from sorted(
            {rest.partition("/")[0] for rest in below if "/" in rest and rest.partition("/")[0] > start_after}
        )

    def advisory_lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def sweep(self, *, older_than_s: float, dry_run: bool = False) -> tuple[str, ...]:
        return ()

    def create(self, key: str, data: bytes) -> str:
        self._refuse()

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        self._refuse()

    def create_file(self, key: str, path: Path, *, sha256: str, progress: Progress | None = None) -> None:
        self._refuse()

    def delete(self, key: str, *, etag: str | None = None) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidSettings(f"{self._path} is an exported file, which never changes: import it into a registry")

    def _found(self, key: str) -> BundleFile:
        try:
            return self._files[key]
        except KeyError:
            raise ObjectMissing(key) from None


class _Part(io.RawIOBase):
    """A part of a file as a stream of its own; positions count from where the part begins."""

    def __init__(self, file: BinaryIO, offset: int, start: int, end: int) -> None:
        self._file, self._offset, self._at, self._end = file, offset, start, end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(self._file.fileno(), max(0, min(len(view), self._end - self._at)), self._offset + self._at)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextlib.contextmanager
def opened_export(path: Path) -> Iterator[tuple[Registry, CopyOrigin]]:
    """Give an exported file as a registry to read, and where its versions come from.

    Raises:
        InvalidArchive: There is no file that could be read, or it is not as `export` writes one.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        store = Exported(path, file)
        yield Registry(store), store.origin
