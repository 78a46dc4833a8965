"""The boundary to object storage: a flat key space with conditional writes.

Methods block; callers on an event loop run them in a thread pool at one seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

__all__ = ["PROBES", "ObjectChanged", "ObjectExists", "ObjectMissing", "ObjectStore", "Progress", "StoredObject"]

PROBES = "probes/"
"""Prefix of the objects that `probe` makes and removes; `sweep` removes what a killed one left."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class ObjectMissing(Exception):
    """There is no object under that key."""


class ObjectExists(Exception):
    """A create-only write found an object under that key."""


class ObjectChanged(Exception):
    """A compare-and-swap found another object than the one it was to replace.

    Another writer may have built on what this one wrote: who must know looks for a mark of its own in what is there.
    """


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A small object, whole: its bytes and the tag that a compare-and-swap names."""

    data: bytes
    etag: str


class ObjectStore(Protocol):
    """Flat object storage. Every implementation passes `tests/core/objects/test_object_store_contract.py`.

    Keys are relative, '/'-separated, and no part of one is empty or begins with '.'. A write is visible whole or not
    at all, and has reached stable storage when the call returns. Two writers are told apart by their bytes: whoever
    must know that *it* won, and not another with the same bytes, puts an id of its own into them.

    Every method raises `marway.errors.RegistryUnavailable` when the storage cannot be reached or refuses us, and a
    write raises `marway.errors.OutcomeUnknown` when it cannot be found out whether it was done.
    """

    @property
    def url(self) -> str:
        """The URL that opens this store."""

    @property
    def parallel_reads(self) -> bool:
        """Whether a large object is read faster by several `open` calls at once, each for a part of it."""

    def get(self, key: str) -> StoredObject:
        """Return a small object.

        Raises:
            ObjectMissing: There is none.
        """

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None when there is none."""

    def tag(self, key: str) -> str | None:
        """Return the tag that an object of any size has now, or None when there is none."""

    def now(self) -> datetime:
        """Return the time by the store's own clock, which all its writers share; that of this machine may be wrong."""

    def written_at(self, key: str) -> datetime | None:
        """Return when an object was written, by the store's own clock, or None when there is none."""

    def create(self, key: str, data: bytes) -> str:
        """Write an object that must not exist yet, and return its tag.

        Raises:
            ObjectExists: It does; it was left as it is.
        """

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        """Write over the object that has ``etag``, and return the new tag.

        Raises:
            ObjectChanged: The object is another by now, or gone; it was left as it is.
        """

    def create_file(self, key: str, path: Path, *, sha256: str, progress: Progress | None = None) -> None:
        """Write a file's bytes as an object that must not exist yet, checking them on the way.

        Args:
            key: Where to; it names the bytes, so that whoever creates it creates the same.
            path: The file; it is read once, in pieces, and not at all when the object exists.
            sha256: What its bytes must have, in hex.
            progress: Told about bytes written.

        Raises:
            ObjectExists: There is an object already.
            ArchiveCorrupt: The bytes read have another digest; nothing was written.
        """

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> AbstractContextManager[BinaryIO]:
        """Open an object for streaming, from its byte ``start`` on; the handle can seek.

        Args:
            key: Which.
            start: First byte that is read; one beyond the object's end is no error, there is just nothing to read.
            length: Where reading ends, in bytes from ``start``; None, or more than there is, means the object's end.
                Positions of the handle count from the object's first byte all the same.

        Raises:
            ObjectMissing: There is none.
        """

    def keys(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` and come after ``start_after``, lazily.

        Keys of one level come in the order of their bytes; how levels mix is the store's own.
        """

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that begin with ``prefix`` with their sizes in bytes, lazily, in the order of `keys`.

        It takes no more than listing them does; an object that is deleted meanwhile may be left out.
        """

    def children(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the distinct next parts of the keys that go on below ``prefix`` ("models/"), lazily, in byte order.

        A part whose last object was deleted may be yielded for a while (SeaweedFS keeps a directory for it).

        Args:
            prefix: Ends with '/'; parts that end a key are not yielded.
            start_after: Begin behind this part.
        """

    def delete(self, key: str, *, etag: str | None = None) -> None:
        """Remove an object; one that is not there is no error.

        Args:
            key: Which.
            etag: Only if it still has this tag.

        Raises:
            ObjectChanged: ``etag`` was given, and the object has another.
        """

    def advisory_lock(self, key: str) -> AbstractContextManager[None]:
        """Wait a while for a lock on ``key``, held while it is changed.

        It spares writers that know of one another lost races; nothing relies on it, and who has waited for some seconds
        goes on without it.
        """

    def sweep(self, *, older_than_s: float, dry_run: bool = False) -> tuple[str, ...]:
        """Remove what interrupted writes left that nobody sees, and return its names.

        Args:
            older_than_s: Leave what is younger, which may be somebody's work in progress.
            dry_run: Remove nothing.
        """
