"""What versions took the last time: memory of a worker, time of a load. Kept in a small file over restarts."""

from __future__ import annotations

import contextlib
import logging
import statistics
from pathlib import Path
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
    shared_bytes: int = 0
    device_bytes: int | None = None
    load_s: float | None = None


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    versions: dict[str, _Known] = {}  # in the order of their last measurement
    overheads: list[int] = []
    load_s: float | None = None


class Estimates:
    """Says what a load will take before it is done; the settings say it until something was measured."""

    def __init__(self, settings: SidecarSettings) -> None:
        self._settings = settings
        self._path = settings.runtime_dir / ESTIMATES_FILE
        self._known = _read(self._path)
        self._changed = False

    def is_guess(self, key: str) -> bool:
        """Whether nothing was measured that an estimate for this version could rest on."""
        return not self._known.overheads and self._worker_bytes(key) is None

    def memory_bytes(self, key: str, archive: ArchiveRef, workers: int) -> int:
        """Return the memory to reserve for a version with so many workers."""
        if (measured := self._worker_bytes(key)) is not None:
            one = measured * _HEADROOM
        elif self._known.overheads:
            one = self._model_bytes(archive) + statistics.median(self._known.overheads) * _HEADROOM
        else:
            one = self._model_bytes(archive) + self._settings.worker_base_bytes
        return REGISTERED_BYTES + self._shared_bytes(key) + int(one) * workers

    def reservation_bytes(self, key: str, archive: ArchiveRef, workers: int, budget: int | None) -> int:
        """Return the memory to reserve for so many workers where there is so much.

        A guess is cut to the budget, so that a version larger than the guess is worth still gets its chance, alone;
        what was measured, and the model's own part of the guess, is not.
        """
        guessed = self.memory_bytes(key, archive, workers)
        measured = self._worker_bytes(key)
        one = int(self._model_bytes(archive)) if measured is None else measured
        least = self._shared_bytes(key) + one * workers + REGISTERED_BYTES
        return guessed if budget is None or least > budget else min(guessed, budget)

    def measured_memory(self, key: str, archive: ArchiveRef, worker_bytes: int, shared_bytes: int) -> None:
        """Remember what a worker of a version takes, and what all its workers share, which is there once."""
        if self._worker_bytes(key) is None:
            overhead = max(0, worker_bytes + shared_bytes - int(self._model_bytes(archive)))
            self._known.overheads = [*self._known.overheads, overhead][-_OVERHEADS:]
        self._know(key, worker_bytes=worker_bytes, shared_bytes=shared_bytes)

    def device_bytes(self, key: str, archive: ArchiveRef, most: int) -> int:
        """Return what to reserve of a GPU's memory for a worker of a version.

        ``most`` is what any of them could have free: doubt, and a guess, ask for no more.
        """
        known = self._known.versions.get(key)
        if known is not None and known.device_bytes is not None:
            return max(known.device_bytes, min(int(known.device_bytes * _HEADROOM), most))
        return min(int(self._model_bytes(archive)), most)

    def measured_device_memory(self, key: str, device_bytes: int) -> None:
        """Remember what a worker of a version takes of a GPU's memory; 0 for a version that uses none."""
        self._know(key, device_bytes=device_bytes)

    def load_s(self, key: str) -> float:
        """Return how long a load should take: this version's last, else the others', else the default, in seconds."""
        known = self._known.versions.get(key)
        for seconds in (known.load_s if known is not None else None, self._known.load_s):
            if seconds is not None:
                return seconds
        return self._settings.expected_load_s

    def measured_load(self, key: str, duration_s: float) -> None:
        """Remember how long a load took."""
        before = duration_s if self._known.load_s is None else self._known.load_s
        self._known.load_s = before + _SMOOTHING * (duration_s - before)
        self._know(key, load_s=duration_s)

    def changes(self) -> bytes | None:
        """Return what the file should hold, and count it as written; None when it holds that."""
        if not self._changed:
            return None
        self._changed = False
        return self._known.model_dump_json(exclude_none=True, indent=1).encode()

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

    def _model_bytes(self, archive: ArchiveRef) -> float:
        """Return the guess of what a model takes in a worker."""
        return archive.size_bytes * self._settings.archive_memory_factor

    def _worker_bytes(self, key: str) -> int | None:
        """Return what a worker of a version was measured to take."""
        known = self._known.versions.get(key)
        return known.worker_bytes if known is not None else None

    def _shared_bytes(self, key: str) -> int:
        """Return what the workers of a version were measured to share."""
        known = self._known.versions.get(key)
        return known.shared_bytes if known is not None else 0

    def _know(self, key: str, **measured: float) -> None:
        versions = self._known.versions
        versions[key] = versions.pop(key, _Known()).model_copy(update=measured)
        if len(versions) > _KEPT:
            versions.pop(next(iter(versions)))
        self._changed = True


def _read(path: Path) -> _Document:
    """Return what the file holds; one that is missing or damaged is as good as empty."""
    try:
        return _Document.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as exc:
        logger.warning("%s cannot be read, so memory is estimated anew: %s", path, exc)
    return _Document()
