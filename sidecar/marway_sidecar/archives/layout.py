"""Where everything lies in an archive store.

::

    <sha256>.mar                what TorchServe reads: whole, checked, never written again
    .fetch-<sha256>-<random>    a download under way, locked by its writer; it has the archive's size from its beginning
    .locks/fetch-<sha256>       whose turn it is to download
    .locks/use-<sha256>         shared by all who use the archive; its time of change is when it was used last
    .locks/space                whose turn it is to make room
    quarantine/<sha256>.mar     bytes that are not the archive's, and beside them in .json why
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import DirEntry, scandir
from pathlib import Path

__all__ = ["ARCHIVE_SUFFIX", "Layout"]

ARCHIVE_SUFFIX = ".mar"
_PARTIAL_PREFIX = ".fetch-"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths in the store at ``root``."""

    root: Path

    @property
    def locks(self) -> Path:
        return self.root / ".locks"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def space_lock(self) -> Path:
        return self.locks / "space"

    def archive(self, sha256: str) -> Path:
        return self.root / f"{sha256}{ARCHIVE_SUFFIX}"

    def fetch_lock(self, sha256: str) -> Path:
        return self.locks / f"fetch-{sha256}"

    def use_lock(self, sha256: str) -> Path:
        return self.locks / f"use-{sha256}"

    def partial_prefix(self, sha256: str) -> str:
        return f"{_PARTIAL_PREFIX}{sha256}-"

    def archives(self) -> Iterator[DirEntry[str]]:
        """Yield the archives, in no order."""
        yield from self._files(lambda name: name.endswith(ARCHIVE_SUFFIX) and not name.startswith("."))

    def partials(self, sha256: str = "") -> Iterator[DirEntry[str]]:
        """Yield the downloads under way or abandoned, of one archive or of all."""
        prefix = self.partial_prefix(sha256) if sha256 else _PARTIAL_PREFIX
        yield from self._files(lambda name: name.startswith(prefix))

    def make(self) -> None:
        """Make the directories."""
        for path in (self.root, self.locks):
            path.mkdir(parents=True, exist_ok=True)

    def _files(self, wanted: Callable[[str], bool]) -> Iterator[DirEntry[str]]:
        with scandir(self.root) as found:
            yield from (entry for entry in found if wanted(entry.name))
