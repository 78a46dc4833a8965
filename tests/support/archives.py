"""Archives for tests of the archive store: bytes of a wanted size in a registry."""

from __future__ import annotations

import random
from pathlib import Path

from marway.archive_store import ArchiveStore, FetchOutcome
from marway.records import ArchiveKind, ArchiveRef, VersionRecord
from marway.registry import Registry
from support.registry import publisher

__all__ = ["MIB", "Observed", "fetched", "names", "published"]

MIB = 1024 * 1024


class Observed(list[FetchOutcome]):
    """The outcomes of fetches, in their order."""

    def __call__(self, outcome: FetchOutcome, duration_s: float) -> None:
        assert duration_s >= 0
        self.append(outcome)


def published(
    registry: Registry, scratch: Path, name: str, size: int = 1000, kind: ArchiveKind = "mar"
) -> VersionRecord:
    """Publish a version whose archive has ``size`` bytes, different for each name."""
    data = random.Random(name).randbytes(size)
    return publisher(registry, scratch)(name, "1.0", data=data, id=f"run-{name}", kind=kind)


def fetched(store: ArchiveStore, archive: ArchiveRef) -> Path:
    """Have a store fetch an archive, and return where it is; nothing uses it."""
    with store.use(archive) as use:
        return use.path


def names(root: Path) -> list[str]:
    """Return what is in a store, without its locks."""
    return sorted(path.name for path in root.iterdir() if path.name != ".locks")
