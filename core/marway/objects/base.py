"""The boundary to object storage: a flat key space with conditional writes.

Methods block; callers on an event loop run them in a thread pool at one seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

__all__ = ["ObjectChanged", "ObjectExists", "ObjectMissing", "ObjectStore", "Progress", "StoredObject"]

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class ObjectMissing(Exception):
    """There is no object under that key."""


class ObjectExists(Exception):
    """A create-only write found an object under that key."""


class ObjectChanged(Exception):
    """A compare-and-swap found another object than the one it was to replace."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A small object, whole: its bytes and the tag that a compare-and-swap names."""

    data: bytes
    etag: str


class ObjectStore(Protocol):
    """Flat object storage. Every implementation passes `tests/core/test_object_store_contract.py`.

    Keys are relative, '/'-separated, without empty, '.' or '..' parts. A write is visible whole or not at all,
    and has reached stable storage when the call returns. `marway.errors.RegistryUnavailable` is raised by
    every method when the storage cannot be reached.
    """

    @property
    def url(self) -> str:
        """The URL that opens this store."""

    def probe(self) -> None:
        """Check that conditional writes really exclude one another.

        Raises:
            InvalidSettings: Two of many synchronised creators of one key both won.
        """

    def get(self, key: str) -> StoredObject:
        """Return a small object.

        Raises:
            ObjectMissing: There is none.
        """

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None when there is none."""

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
            key: Where to.
            path: The file; it is read once, in pieces.
            sha256: What its bytes must have, in hex.
            progress: Told about bytes written.

        Raises:
            ObjectExists: There is an object already.
            ArchiveCorrupt: The bytes read have another digest; nothing was written.
        """

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for streaming from its start.

        Raises:
            ObjectMissing: There is none.
        """

    def keys(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` in the order of their bytes, lazily."""

    def children(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the distinct next path parts below ``prefix`` ("models/") in order, lazily."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
