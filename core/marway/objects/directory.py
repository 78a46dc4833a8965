"""Object storage in a directory: the embedded default, for one machine or one shared POSIX file system.

A write goes to a temporary file in the target's own directory, is fsynced, and becomes visible by `link()` (create)
or `rename()` (replace), after which the directory is fsynced: a rename without the file's fsync was seen to
leave an empty object after a power cut. New directories are fsynced in their parents, and what is found to exist is
fsynced before anybody is told so: its maker may not have come that far. Compare-and-swap takes a lock that a
killed or stopped holder does not keep (`marway.objects.locks`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote

from marway.errors import RegistryUnavailable
from marway.objects.base import PROBES, ObjectChanged, ObjectExists, ObjectMissing, Progress, StoredObject
from marway.objects.files import CheckedFile, DurableFiles, Files, Window
from marway.objects.locks import fenced_lock, patient_lock

__all__ = ["DirectoryStore"]

_CHUNK_BYTES = 1024 * 1024
_TEMPORARY = ".tmp-"
_LOCKS = ".locks"
_LOCK_WAIT_S = 5.0
_FENCED_MAX = 10


class DirectoryStore:
    """An `ObjectStore` over files below ``root``; the directory is made by the first write.

    Args:
        root: Where the objects are; keys are paths below it.
        files: How the disk is changed; tests put a recorder in its place.
    """

    parallel_reads = False  # one reader gets all that a disk gives

    def __init__(self, root: Path, *, files: Files | None = None) -> None:
        self._root = root.absolute()
        self._files = files or Files()
        self._durable = DurableFiles(self._root, self._files)

    @property
    def url(self) -> str:
        return "file://" + quote(str(self._root))

    def get(self, key: str) -> StoredObject:
        with self._translated(key):
            data = self._path(key).read_bytes()
        return StoredObject(data, _etag(data))

    def size(self, key: str) -> int | None:
        found = self._status(key)
        return None if found is None else found.st_size

    def tag(self, key: str) -> str | None:
        with self._translated(key):
            return _etag_of(self._path(key))

    def now(self) -> datetime:
        try:
            descriptor, temporary = self._files.create_temporary(self._root, _TEMPORARY)
        except OSError:  # nobody can have written anything later, or we cannot: then nothing hangs on it
            return datetime.now(timezone.utc)
        try:
            return _moment(os.fstat(descriptor))
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(temporary)

    def written_at(self, key: str) -> datetime | None:
        found = self._status(key)
        return None if found is None else _moment(found)

    def create(self, key: str, data: bytes) -> str:
        with self._translated(key), self._temporary(key) as (descriptor, temporary):
            self._files.write(descriptor, data)
            self._durable.link(descriptor, temporary, self._path(key))
        return _etag(data)

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        with self._translated(key):
            for _ in range(_FENCED_MAX):
                if self._replace(key, data, etag):
                    return _etag(data)
        raise RegistryUnavailable(f"{self._root}: others took {key} for abandoned {_FENCED_MAX} times: try again")

    def create_file(self, key: str, path: Path, *, sha256: str, progress: Progress | None = None) -> None:
        with self._translated(key):
            target = self._path(key)
            if target.exists():
                self._files.sync_directory(target.parent)
                raise ObjectExists(key)
            with path.open("rb") as file, self._temporary(key) as (descriptor, temporary):
                source, total, done = CheckedFile(file, path, sha256), os.fstat(file.fileno()).st_size, 0
                while chunk := source.read(_CHUNK_BYTES):
                    self._files.write(descriptor, chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
                source.check()
                self._durable.link(descriptor, temporary, target)

    @contextlib.contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        with self._translated(key):
            handle = self._path(key).open("rb")
        with handle:
            handle.seek(start)
            yield handle if length is None else cast("BinaryIO", io.BufferedReader(Window(handle, start + length)))

    def keys(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        base, slash, _ = prefix.rpartition("/")
        for key in self._walk(base + slash):
            if key.startswith(prefix) and key > start_after:
                yield key

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        for key in self.keys(prefix):
            if (size := self.size(key)) is not None:
                yield key, size

    def children(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        for name, is_directory in self._entries(prefix):
            if is_directory and name > start_after and self._has_objects(f"{prefix}{name}/"):
                yield name

    def delete(self, key: str, *, etag: str | None = None) -> None:
        path = self._path(key)
        with contextlib.suppress(ObjectMissing), self._translated(key):
            with self._locked(key) if etag is not None else contextlib.nullcontext():
                if etag is not None and _etag_of(path) not in (etag, None):
                    raise ObjectChanged(key)
                self._files.unlink(path)
            self._files.sync_directory(path.parent)

    @contextlib.contextmanager
    def advisory_lock(self, key: str) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            with self._translated(key):  # of a directory that cannot be written, which is found out here first
                held.enter_context(patient_lock(self._lock_file("turn", key), patience_s=_LOCK_WAIT_S))
            yield

    def sweep(self, *, older_than_s: float, dry_run: bool = False) -> tuple[str, ...]:
        limit = self.now().timestamp() - older_than_s
        found = []
        for directory, _, names in os.walk(self._root):
            at = Path(directory)
            relative = at.relative_to(self._root).as_posix() + "/"
            for name in names:
                if not (name.startswith(_TEMPORARY) or relative == PROBES):
                    continue
                with contextlib.suppress(FileNotFoundError), self._translated(name):
                    path = at / name
                    if path.stat().st_mtime > limit:
                        continue
                    if not dry_run:
                        self._files.unlink(path)
                    found.append(path.relative_to(self._root).as_posix())
        return tuple(sorted(found))

    def _status(self, key: str) -> os.stat_result | None:
        try:
            with self._translated(key):
                return self._path(key).stat()
        except ObjectMissing:
            return None

    def _replace(self, key: str, data: bytes, etag: str) -> bool:
        """Swap, or return False if another process took this one for stopped and fenced it."""
        path = self._path(key)
        # The file comes before the lock: see marway.objects.locks.
        with self._durable.temporary(path.parent, _swap_prefix(path)) as (descriptor, temporary):
            self._files.write(descriptor, data)
            self._files.sync(descriptor)
            with self._locked(key):
                if _etag_of(path) != etag:
                    raise ObjectChanged(key)
                try:
                    self._files.rename(temporary, path)
                except FileNotFoundError:
                    return False
            self._files.sync_directory(path.parent)
            return True

    def _has_objects(self, prefix: str) -> bool:
        return next(self._walk(prefix), None) is not None

    def _walk(self, prefix: str) -> Iterator[str]:
        for name, is_directory in self._entries(prefix):
            if is_directory:
                yield from self._walk(f"{prefix}{name}/")
            else:
                yield prefix + name

    def _entries(self, prefix: str) -> list[tuple[str, bool]]:
        try:
            with self._translated(prefix), os.scandir(self._path(prefix) if prefix else self._root) as found:
                return sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
        except ObjectMissing:
            return []

    def _path(self, key: str) -> Path:
        parts = key.strip("/").split("/")
        if any(part[:1] in ("", ".") or "\0" in part for part in parts):
            raise ValueError(f"not an object key: {key!r}")
        return self._root.joinpath(*parts)

    def _temporary(self, key: str) -> contextlib.AbstractContextManager[tuple[int, Path]]:
        return self._durable.temporary(self._path(key).parent, _TEMPORARY)

    def _locked(self, key: str) -> contextlib.AbstractContextManager[object]:
        path = self._path(key)

        def fence() -> None:
            for temporary in path.parent.glob(_swap_prefix(path) + "*"):
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()

        return fenced_lock(self._lock_file("swap", key), fence)

    def _lock_file(self, kind: str, key: str) -> Path:
        locks = self._root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        # Named by its key: a fence for one key must find all temporary files that its lock guards.
        return locks / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as exc:
            if not str(exc.filename or "").startswith(str(self._root)):
                raise
            if self._root.exists() and not self._root.is_dir():
                raise self._durable.not_a_directory(self._root) from exc
            raise ObjectMissing(key) from exc
        except OSError as exc:
            if not str(exc.filename or self._root).startswith(str(self._root)):
                raise
            if exc.errno == errno.ENOSPC:
                raise RegistryUnavailable(f"no space left for the registry in {self._root}") from exc
            raise RegistryUnavailable(f"registry directory {self._root}: {exc.strerror}") from exc


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _etag_of(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(_CHUNK_BYTES):
                digest.update(chunk)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return digest.hexdigest()


def _moment(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, timezone.utc)


def _swap_prefix(path: Path) -> str:
    return f"{_TEMPORARY}swap-{path.name}-"
