"""Objects of one store on their way to another: as a file here, whose digest is known."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from marway.errors import ArchiveCorrupt
from marway.objects import ObjectMissing, ObjectStore

__all__ = ["Fetched", "fetched"]

_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object's bytes in a file that is gone afterwards."""

    path: Path
    sha256: str
    size: int


@contextlib.contextmanager
def fetched(store: ObjectStore, key: str, *, sha256: str | None = None) -> Iterator[Fetched]:
    """Give an object as a file in the temporary directory (`TMPDIR`), which needs as much room as the object has.

    Args:
        store: Where the object is.
        key: Which.
        sha256: The digest that it must have, in hex; None where it has none that is known.

    Raises:
        ArchiveCorrupt: It is not there, or has another digest.
    """
    digest, size = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(prefix="marway-copy-") as file:
        try:
            with store.open(key) as handle:
                while piece := handle.read(_PIECE_BYTES):
                    digest.update(piece)
                    size += len(piece)
                    file.write(piece)
        except ObjectMissing as exc:
            raise ArchiveCorrupt(f"{store.url} has no {key}: `marway gc --scrub` says what to do") from exc
        file.flush()
        found = digest.hexdigest()
        if sha256 not in (None, found):
            raise ArchiveCorrupt(f"{key} of {store.url} is damaged: its bytes have sha256 {found}")
        yield Fetched(Path(file.name), found, size)
