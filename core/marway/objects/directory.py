"""Object storage in a directory: the embedded default, for one machine or one shared POSIX file system.

A write goes to a temporary file in the target's own directory, is fsynced, and becomes visible by `link()` (create)
or `rename()` (replace), after which the directory is fsynced: a rename without the file's fsync was seen to
leave an empty object after a power cut. Compare-and-swap takes an `flock`, which dies with its holder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from marway.errors import ArchiveCorrupt, InvalidSettings, RegistryUnavailable
from marway.objects.base import ObjectChanged, ObjectExists, ObjectMissing, Progress, StoredObject

__all__ = ["DirectoryStore"]

_CHUNK_BYTES = 1024 * 1024
_TEMPORARY = ".tmp-"
_LOCKS = ".locks"


class DirectoryStore:
    """An `ObjectStore` over files below ``root``; the directory is made by the first write.

    Args:
        root: Where the objects are; keys are paths below it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def url(self) -> str:
        return "file://" + quote(str(self._root))

    def probe(self) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            key = f"{_TEMPORARY}probe-{os.getpid()}-{os.urandom(4).hex()}"
            self.create(key, b"probe")
            try:
                self.create(key, b"probe")
            except ObjectExists:
                return
            finally:
                self.delete(key)
        except OSError as exc:
            raise RegistryUnavailable(f"cannot write to the registry directory {self._root}: {exc.strerror}") from exc
        raise InvalidSettings(f"{self._root}: this file system lets two writers create one file; use another")

    def get(self, key: str) -> StoredObject:
        with self._translated(key):
            data = self._path(key).read_bytes()
        return StoredObject(data, _etag(data))

    def size(self, key: str) -> int | None:
        try:
            with self._translated(key):
                return self._path(key).stat().st_size
        except ObjectMissing:
            return None

    def create(self, key: str, data: bytes) -> str:
        with self._translated(key), self._temporary(key) as (handle, temporary):
            handle.write(data)
            self._link(handle, temporary, self._path(key))
        return _etag(data)

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        with self._translated(key), self._locked(key):
            path = self._path(key)
            try:
                current = _etag(path.read_bytes())
            except FileNotFoundError as exc:
                raise ObjectChanged(key) from exc
            if current != etag:
                raise ObjectChanged(key)
            with self._temporary(key) as (handle, temporary):
                handle.write(data)
                _sync(handle)
                temporary.replace(path)
                _sync_directory(path.parent)
        return _etag(data)

    def create_file(self, key: str, path: Path, *, sha256: str, progress: Progress | None = None) -> None:
        with self._translated(key):
            target = self._path(key)
            if target.exists():
                raise ObjectExists(key)
            digest = hashlib.sha256()
            with path.open("rb") as source, self._temporary(key) as (handle, temporary):
                total = os.fstat(source.fileno()).st_size
                done = 0
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    handle.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
                if digest.hexdigest() != sha256:
                    raise ArchiveCorrupt(
                        f"{path}: its bytes have sha256 {digest.hexdigest()}, not {sha256}: "
                        "the file changed while it was being read; try again"
                    )
                self._link(handle, temporary, target)

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        with self._translated(key):
            handle = self._path(key).open("rb")
        with handle:
            yield handle

    def keys(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        base, slash, rest = prefix.rpartition("/")
        for key in self._walk(base + slash):
            if key.startswith(base + slash + rest) and key > start_after:
                yield key

    def children(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        for name, _ in self._entries(prefix):
            if name > start_after:
                yield name

    def delete(self, key: str) -> None:
        with contextlib.suppress(ObjectMissing), self._translated(key):
            path = self._path(key)
            path.unlink()
            _sync_directory(path.parent)

    def _walk(self, prefix: str) -> Iterator[str]:
        # Sorting names with '/' behind directories gives the order of whole keys, as S3 lists them.
        entries = sorted((name + "/" if is_dir else name) for name, is_dir in self._entries(prefix))
        for entry in entries:
            if entry.endswith("/"):
                yield from self._walk(prefix + entry)
            else:
                yield prefix + entry

    def _entries(self, prefix: str) -> list[tuple[str, bool]]:
        try:
            with self._translated(prefix), os.scandir(self._path(prefix) if prefix else self._root) as found:
                return sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
        except ObjectMissing:
            return []

    def _path(self, key: str) -> Path:
        parts = key.strip("/").split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ValueError(f"not an object key: {key!r}")
        return self._root.joinpath(*parts)

    @contextlib.contextmanager
    def _temporary(self, key: str) -> Iterator[tuple[BinaryIO, Path]]:
        directory = self._path(key).parent
        directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=directory)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                os.fchmod(descriptor, 0o644)
                yield handle, path
        finally:
            path.unlink(missing_ok=True)

    def _link(self, handle: BinaryIO, temporary: Path, target: Path) -> None:
        _sync(handle)
        try:
            os.link(temporary, target)
        except FileExistsError as exc:
            raise ObjectExists(target.name) from exc
        _sync_directory(target.parent)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        locks = self._root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        # Few lock files for any number of keys; two keys that share one only wait for each other.
        slot = hashlib.sha256(key.encode()).hexdigest()[:2]
        with (locks / slot).open("wb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as exc:
            if not str(exc.filename or "").startswith(str(self._root)):
                raise
            raise ObjectMissing(key) from exc
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise RegistryUnavailable(f"no space left for the registry in {self._root}") from exc
            raise RegistryUnavailable(f"registry directory {self._root}: {exc.strerror}") from exc


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync(handle: BinaryIO) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
