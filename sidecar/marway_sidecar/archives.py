"""The archive store: fetched archives under their digest, in a directory that pods may share.

An archive becomes visible under its final name only when every byte was checked and has reached stable storage.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from marway.errors import ArchiveCorrupt, LoadFailed, Unavailable
from marway.objects import ObjectMissing
from marway.objects.files import Files
from marway.records import ArchiveRef
from marway.registry import Registry

__all__ = ["ArchiveStore", "FetchOutcome"]

FetchOutcome = Literal["ok", "shared", "corrupt", "missing", "no_space", "unavailable"]
"""`ok`: bytes came from the registry; `shared`: another process had them or was fetching them."""

_CHUNK_BYTES = 1024 * 1024


class ArchiveStore:
    """Fetches archives into a directory, each once among all processes that share it. Methods block.

    Args:
        root: The directory; TorchServe's model store.
        registry: Where archives come from.
        observe: Told each fetch's outcome and its duration in seconds.
    """

    def __init__(self, root: Path, registry: Registry, *, observe: Callable[[FetchOutcome, float], None]) -> None:
        self._root = root
        self._registry = registry
        self._observe = observe

    def ensure(self, archive: ArchiveRef) -> Path:
        """Return the path of the archive, fetching it if it is not here.

        Raises:
            ArchiveCorrupt: The registry's bytes do not have the digest; nothing was kept.
            LoadFailed: The registry has no such archive.
            Unavailable: The registry cannot be reached, or the disk is full.
        """
        path = self._root / f"{archive.sha256}.mar"
        if path.exists():
            return path
        started = time.monotonic()
        outcome: FetchOutcome = "unavailable"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with self._locked(archive.sha256):
                if path.exists():
                    outcome = "shared"
                    return path
                self._fetch(archive, path)
            outcome = "ok"
        except ArchiveCorrupt:
            outcome = "corrupt"
            raise
        except ObjectMissing as exc:
            outcome = "missing"
            raise LoadFailed(f"the registry has no archive {archive.sha256[:12]}…: publish the version again") from exc
        except OSError as exc:
            outcome = "no_space"
            raise Unavailable(f"cannot store an archive in {self._root}: {exc.strerror}") from exc
        finally:
            self._observe(outcome, time.monotonic() - started)
        return path

    def _fetch(self, archive: ArchiveRef, path: Path) -> None:
        descriptor, name = tempfile.mkstemp(prefix=".fetch-", dir=self._root)
        temporary = Path(name)
        try:
            digest = hashlib.sha256()
            with os.fdopen(descriptor, "wb") as target, self._registry.open_archive(archive.sha256) as source:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
                target.flush()
                os.fchmod(descriptor, 0o444)
                os.fsync(descriptor)
            if digest.hexdigest() != archive.sha256:
                raise ArchiveCorrupt(
                    f"the registry's archive {archive.sha256[:12]}… has other bytes ({digest.hexdigest()[:12]}…): it "
                    "was damaged; publish the version again from its source"
                )
            temporary.replace(path)
            Files().sync_directory(self._root)
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, sha256: str) -> Iterator[None]:
        locks = self._root / ".locks"
        locks.mkdir(exist_ok=True)
        with (locks / sha256[:2]).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel lets go of it when its holder dies
            yield
