"""An archive's bytes from the registry into a file, with their digest.

From a network, one stream or several: each takes the next part and writes it to its place, while the caller's thread
follows from the beginning with the digest, reading what is complete back out of the page cache; so it can give up when
it must, even while every stream hangs. In memory there is one piece for each stream, whatever the archive's size.
From a directory, a plain copy in the caller's thread: a hard link would share the fate of the registry's file, and
a clone would have to be read for its digest all the same. A part whose connection is cut goes on where it was
(`marway.objects.s3.reader`); one that makes no headway for several attempts fails the download.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, Final

from marway.archive_store.layout import Stored
from marway.environments.lock import WheelRef
from marway.errors import RegistryUnavailable
from marway.objects.files import Files
from marway.registry import Registry

__all__ = ["PARALLEL_FROM_BYTES", "download"]

PARALLEL_FROM_BYTES: Final = 64 * 1024 * 1024
"""Smaller archives come in one stream: one request, and done before more connections would help."""
_PART_BYTES: Final = 16 * 1024 * 1024
"""AWS advises 8 to 16 MB for a ranged GET."""
_PIECE_BYTES: Final = 1024 * 1024
_SYNC_BYTES: Final = 64 * 1024 * 1024
"""How much is brought to the disk at a time: the last sync, which shows no progress, is then short."""
_LOOK_S: Final = 0.1
"""How often the caller is asked whether to go on when no bytes come, in seconds."""
_LEAVE_S: Final = 0.1
"""How long a stream that is called off is waited for; one stuck in a read ends by itself, with its time-out (30 s)."""


def download(
    registry: Registry,
    archive: Stored,
    descriptor: int,
    files: Files,
    *,
    streams: int,
    progress: Callable[[int], None],
) -> tuple[int, str]:
    """Write an archive's bytes, no more than its size, to a file; return how many came, and their sha256 in hex.

    ``descriptor`` has the archive's size and stands at its beginning. A large one comes over so many connections
    (``streams``). ``progress`` is told how many bytes there are, also when no more came, and raises to call it off.

    Raises:
        ObjectMissing: The registry has no such archive.
        RegistryUnavailable: It cannot be read.
        OSError: The file cannot be written.
    """
    if registry.parallel_reads:
        parallel = streams > 1 and archive.size_bytes >= PARALLEL_FROM_BYTES
        streams, part_bytes = (streams, _PART_BYTES) if parallel else (1, archive.size_bytes)
        return _Streams(registry, archive, descriptor, files, part_bytes).run(streams, progress)
    digest = hashlib.sha256()
    done = synced = 0
    with _opened(registry, archive, 0, archive.size_bytes) as source:
        while chunk := _read(source.read):
            files.write(descriptor, chunk)
            digest.update(chunk)
            done += len(chunk)
            if done - synced >= _SYNC_BYTES:
                files.sync(descriptor)
                synced = done
            progress(done)
    return done, digest.hexdigest()


def _opened(registry: Registry, archive: Stored, start: int, length: int) -> AbstractContextManager[BinaryIO]:
    if isinstance(archive, WheelRef):
        return registry.open_wheel(archive.sha256, start=start, length=length)
    return registry.open_archive(archive, start=start, length=length)


def _read(read: Callable[[int], bytes]) -> bytes:
    try:
        return read(_PIECE_BYTES)
    except OSError as exc:  # told apart from trouble with the file that is written
        raise RegistryUnavailable(f"reading an archive from the registry: {exc.strerror or exc}") from exc


class _Streams:
    """The parts of one archive, each fetched by the next stream that is free."""

    def __init__(self, registry: Registry, archive: Stored, descriptor: int, files: Files, part_bytes: int) -> None:
        self._registry, self._archive, self._descriptor, self._files = registry, archive, descriptor, files
        self._part_bytes = part_bytes
        self._size = archive.size_bytes  # less when the object turns out to end early
        self._changed = threading.Condition()
        self._starts = iter(range(0, self._size, part_bytes))
        self._ends: dict[int, int] = {}  # where each part that was begun is complete up to, by its beginning
        self._first = 0  # beginning of the first part that is not complete
        self._arrived = 0
        self._failure: Exception | None = None
        self._stopping = False

    def run(self, streams: int, progress: Callable[[int], None]) -> tuple[int, str]:
        threads = [
            # Each with a descriptor of its own: one that is left behind must not write to another file.
            threading.Thread(target=self._stream, args=(os.dup(self._descriptor),), name="fetch", daemon=True)
            for _ in range(min(streams, -(-self._size // self._part_bytes)))
        ]
        for thread in threads:
            thread.start()
        try:
            return self._follow(progress)
        finally:
            with self._changed:
                self._stopping = True
            for thread in threads:
                thread.join(_LEAVE_S)

    def _follow(self, progress: Callable[[int], None]) -> tuple[int, str]:
        digest = hashlib.sha256()
        done = synced = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda done=done: self._complete() > done or self._failure, _LOOK_S)  # type: ignore[misc]
                if self._failure is not None:
                    raise self._failure
                complete, arrived, size = self._complete(), self._arrived, self._size
            while done < complete:
                piece = os.pread(self._descriptor, min(_PIECE_BYTES, complete - done), done)
                digest.update(piece)
                done += len(piece)
            progress(arrived)
            if done >= size:
                return done, digest.hexdigest()
            if done - synced >= _SYNC_BYTES:
                self._files.sync(self._descriptor)
                synced = done

    def _complete(self) -> int:
        """Return where the first byte is missing."""
        while self._ends.get(self._first) == self._first + self._part_bytes:
            del self._ends[self._first]
            self._first += self._part_bytes
        return min(self._ends.get(self._first, self._first), self._size)

    def _stream(self, descriptor: int) -> None:
        try:
            while (start := self._next()) is not None:
                self._fetch_part(descriptor, start)
        except Exception as exc:  # raised again where it is waited for
            with self._changed:
                self._failure = self._failure or exc
                self._changed.notify()
        finally:
            os.close(descriptor)

    def _next(self) -> int | None:
        with self._changed:
            start = next(self._starts, None)
            if start is None or self._stopping or self._failure is not None or start >= self._size:
                return None
            self._ends[start] = start
            return start

    def _fetch_part(self, descriptor: int, start: int) -> None:
        at = start
        end = min(start + self._part_bytes, self._archive.size_bytes)
        with _opened(self._registry, self._archive, start, end - start) as source:
            while at < end and not self._stopping:
                piece = _read(source.read)
                if piece:
                    self._files.write_at(descriptor, piece, at)
                at += len(piece)
                with self._changed:
                    self._ends[start] = at
                    self._arrived += len(piece)
                    if not piece:
                        self._size = end = min(self._size, at)
                    self._changed.notify()
