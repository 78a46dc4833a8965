"""What versions took the last time: memory of a worker, time of a load. Kept in a small file over restarts."""

from __future__ import annotations

import contextlib
import json
import logging
import statistics
from collections import deque
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from marway.records import ArchiveRef
from marway.refs import new_ulid
from marway_sidecar.settings import SidecarSettings

__all__ = ["ESTIMATES_FILE", "REGISTERED_BYTES", "Estimates"]

logger = logging.getLogger(__name__)

ESTIMATES_FILE: Final = "sidecar-estimates.json"
REGISTERED_BYTES: Final = 40 * 1024
"""What a registered version takes without workers, in the model server (measured)."""
_KEPT: Final = 2000
_OVERHEADS: Final = 16
_HEADROOM: Final = 1.05  # a worker measured the next time differs by a few percent
_SMOOTHING: Final = 0.3


class _Known(BaseModel):
    model_config = ConfigDict(extra="ignore")

    worker_bytes: int | None = None
    load_s: float | None = None


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    versions: dict[str, _Known] = {}
    overheads: list[int] = []
    load_s: float | None = None


class Estimates:
    """Says what a load will take before it is done.

    Args:
        settings: What it takes until it was measured, and the directory of the file.
    """

    def __init__(self, settings: SidecarSettings) -> None:
        self._settings = settings
        self._path = settings.runtime_dir / ESTIMATES_FILE
        self._versions: dict[str, _Known] = {}  # in the order of their last measurement
        self._overheads: deque[int] = deque(maxlen=_OVERHEADS)
        self._load_s: float | None = None
        self._changed = False
        self._read()

    def is_guess(self, key: str) -> bool:
        """Whether nothing was measured that an estimate for this version could rest on."""
        return not self._overheads and self._worker_bytes(key) is None

    def memory_bytes(self, key: str, archive: ArchiveRef, workers: int) -> int:
        """Return the memory to reserve for a version with so many workers."""
        one: float
        if (measured := self._worker_bytes(key)) is not None:
            one = measured * _HEADROOM
        else:
            base = (
                statistics.median(self._overheads) * _HEADROOM if self._overheads else self._settings.worker_base_bytes
            )
            one = archive.size_bytes * self._settings.archive_memory_factor + base
        return REGISTERED_BYTES + int(one) * workers

    def reservation_bytes(self, key: str, archive: ArchiveRef, workers: int, budget: int | None) -> int:
        """Return the memory to reserve for so many workers where there is so much.

        A guess is cut to the budget, so that a version larger than the guess is worth still gets its chance, alone;
        what was measured, and the model's own part of the guess, is not.
        """
        guessed = self.memory_bytes(key, archive, workers)
        one = self._worker_bytes(key)
        least = (
            int(archive.size_bytes * self._settings.archive_memory_factor) if one is None else one
        ) * workers + REGISTERED_BYTES
        return guessed if budget is None or least > budget else min(guessed, budget)

    def measured_memory(self, key: str, archive: ArchiveRef, worker_bytes: int) -> None:
        """Remember what a worker of a version takes."""
        if self._worker_bytes(key) is None:
            self._overheads.append(
                max(0, worker_bytes - int(archive.size_bytes * self._settings.archive_memory_factor))
            )
        self._know(key, worker_bytes=worker_bytes)

    def load_s(self, key: str) -> float:
        """Return how long a load should take: this version's last, else the others', else the default, in seconds."""
        known = self._versions.get(key)
        if known is not None and known.load_s is not None:
            return known.load_s
        return self._load_s if self._load_s is not None else self._settings.expected_load_s

    def measured_load(self, key: str, duration_s: float) -> None:
        """Remember how long a load took."""
        self._load_s = duration_s if self._load_s is None else self._load_s + _SMOOTHING * (duration_s - self._load_s)
        self._know(key, load_s=duration_s)

    def changes(self) -> bytes | None:
        """Return what the file should hold, and count it as written; None when it holds that."""
        if not self._changed:
            return None
        self._changed = False
        document = _Document(versions=self._versions, overheads=list(self._overheads), load_s=self._load_s)
        return json.dumps(document.model_dump(exclude_none=True), indent=1).encode()

    def write(self, data: bytes) -> None:
        """Put ``data`` into the file at once; without it only the next start knows less. Blocks."""
        temporary = self._path.with_name(f".{self._path.name}-{new_ulid()}")
        try:
            temporary.write_bytes(data)
            temporary.replace(self._path)
        except OSError as exc:
            logger.debug("%s cannot be written: %s", self._path, exc)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _read(self) -> None:
        """Take over what the file holds; one that is missing or damaged is as good as empty."""
        try:
            document = _Document.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as exc:
            logger.warning("%s cannot be read, so memory is estimated anew: %s", self._path, exc)
            return
        self._versions = document.versions
        self._overheads.extend(document.overheads)
        self._load_s = document.load_s

    def _model_bytes(self, archive: ArchiveRef) -> int:
        """Return the guess of what a model takes in a worker."""
        return int(archive.size_bytes * self._settings.archive_memory_factor)

    def _worker_bytes(self, key: str) -> int | None:
        """Return what a worker of a version was measured to take."""
        known = self._versions.get(key)
        return known.worker_bytes if known is not None else None

    def _know(self, key: str, *, worker_bytes: int | None = None, load_s: float | None = None) -> None:
        known = self._versions.pop(key, None) or _Known()
        self._versions[key] = _Known(
            worker_bytes=known.worker_bytes if worker_bytes is None else worker_bytes,
            load_s=known.load_s if load_s is None else load_s,
        )
        if len(self._versions) > _KEPT:
            self._versions.pop(next(iter(self._versions)))
        self._changed = True
