"""Whose turn it is to merge: of two that merged the same files at once, each file would count twice."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final

from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from marway.refs import new_ulid

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KEY", "Turn"]

KEY: Final = "leases/merging.json"
_LASTS: Final = timedelta(hours=1)
"""A turn that was not renewed for so long, by the store's clock, belongs to a gc that died."""


class Turn:
    """A lease on merging, renewed before each file becomes one with others.

    A gc that stands still between renewing and writing its file for a whole hour could still write beside another one;
    nothing shorter can.

    Args:
        store: Where the lease is.
        dry_run: Take nothing: it is always ours.

    Attributes:
        ours: Whether it is our turn.
    """

    def __init__(self, store: ObjectStore, *, dry_run: bool = False) -> None:
        self._store = store
        self._tag: str | None = None
        self._dry_run = dry_run
        self.ours = dry_run

    def __enter__(self) -> Self:
        if not self._dry_run:
            self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tag is not None:
            with contextlib.suppress(ObjectChanged):  # taken over by another, which thought us dead
                self._store.delete(KEY, etag=self._tag)
            self._tag = None
        self.ours = self._dry_run

    def renew(self) -> bool:
        """Return whether it is still our turn, and for an hour from now."""
        if self._dry_run:
            return True
        if self._tag is None:
            return False
        try:
            self._tag = self._store.replace(KEY, _mark(), etag=self._tag)
        except ObjectChanged:
            self._tag, self.ours = None, False
        return self.ours

    def _take(self) -> None:
        try:
            self._tag = self._store.create(KEY, _mark())
        except ObjectExists:
            at = self._store.written_at(KEY)
            if at is not None and self._store.now() - at < _LASTS:
                return
            try:
                self._tag = self._store.replace(KEY, _mark(), etag=self._store.get(KEY).etag)
            except (ObjectChanged, ObjectMissing):
                return  # another took it a moment ago
        self.ours = True


def _mark() -> bytes:
    return f'{{"op_id": "{new_ulid()}"}}'.encode()
