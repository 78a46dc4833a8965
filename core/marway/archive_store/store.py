"""The store itself: an archive becomes visible only when every byte was checked and has reached stable storage.

An archive that is there already is checked too, from end to end, when this process uses it for the first time: what
another process wrote, or this one before a crash, may have been damaged since. sha256 does about 1 GiB/s, less than
TorchServe then takes to unpack the same archive; what has not changed since (inode, size, time) is not read again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from marway.archive_store.download import download
from marway.archive_store.layout import ArchiveUse, Fenced, Layout, Partial, Stored
from marway.archive_store.space import NoRoom, Space
from marway.errors import ArchiveCorrupt, LoadFailed, Unavailable
from marway.objects import ObjectMissing
from marway.objects.files import Files
from marway.objects.locks import fenced_lock
from marway.registry import Registry

__all__ = ["ArchiveStore", "FetchOutcome"]

logger = logging.getLogger(__name__)

FetchOutcome = Literal["ok", "shared", "corrupt", "missing", "no_space", "unavailable"]
"""`ok`: bytes came from the registry; `shared`: another process had them or was fetching them; `corrupt`: those of the
registry, or those on the disk, are not the archive's; `missing`: the registry has none; `no_space`: this store cannot
take it, being full or not writable; `unavailable`: the registry cannot be reached, or not within the deadline."""

_PIECE_BYTES = 1024 * 1024
_PAUSE_MAX_S = 0.05
"""Longest pause between two looks whether another pod is done with the archive: a look is one system call, and the
requests behind it wait as long."""
_SHOWN_PER_STUCK = 10
"""How often progress is shown within the time after which one without is taken for stopped."""
_FENCED_MAX = 5
_RETRY_NO_ROOM_S = 10.0


Identity = tuple[int, int, int]
"""Inode, size and time of a file."""


class _Arrived(Exception):
    """What is waited for has come."""


class ArchiveStore:
    """Fetches archives into a directory, each once among all processes that share it. Methods block.

    Args:
        root: The directory; TorchServe's model store.
        observe: Told each fetch's outcome and its duration in seconds.
        limit_bytes: What the store may hold; None means what the volume has.
        free_bytes: What stays free on the volume.
        quarantine_bytes: How much of what is corrupt is kept.
        stuck_after_s: When a download that makes no progress is taken over by who waits for it, in seconds.
        streams: Connections for one large archive.
        files: How the disk is changed; tests put a recorder in its place.
    """

    def __init__(
        self,
        root: Path,
        registry: Registry,
        *,
        observe: Callable[[FetchOutcome, float], None],
        limit_bytes: int | None = None,
        free_bytes: int = 0,
        quarantine_bytes: int = 1024 * 1024 * 1024,
        stuck_after_s: float = 30.0,
        streams: int = 4,
        files: Files | None = None,
    ) -> None:
        self._layout = Layout(root)
        self._registry = registry
        self._observe = observe
        self._files = files or Files()
        self._space = Space(self._layout, limit_bytes, free_bytes, quarantine_bytes, self._files)
        self._stuck_after_s = stuck_after_s
        self._streams = streams
        self._closing = threading.Event()
        self._whole: dict[str, Identity] = {}  # of what was checked, by digest

    def clean(self) -> None:
        """Remove what dead downloaders left; a store that cannot be read or written is left as it is."""
        with contextlib.suppress(OSError):
            if count := self._layout.remove_abandoned():
                logger.info("removed %d abandoned downloads from %s", count, self._layout.root)

    def close(self) -> None:
        """Call off every fetch that waits or goes on, and all later ones; uses stay until they are closed."""
        self._closing.set()

    def use(self, archive: Stored) -> ArchiveUse:
        """Fetch an archive if it is not here, and keep it from being evicted by any process until the use is closed.

        Raises:
            ArchiveCorrupt: The registry's bytes do not have the digest; they are in quarantine.
            LoadFailed: The registry has no such archive.
            Unavailable: The registry cannot be reached, this store has no room, cannot be written or was closed.
        """
        # Before it is looked for: what is used is not evicted once it is there.
        held = self._held(archive)
        try:
            self._ensure(archive)
            if not held.locked:  # a full disk may have room for a lock by now, a read-only one has not
                held = self._held(archive)
                self._ensure(archive)
        except BaseException:
            held.close()
            raise
        return held

    def _held(self, archive: Stored) -> ArchiveUse:
        try:
            return self._layout.use(archive, self._pause)
        except OSError as exc:
            self._observe("no_space", 0.0)
            raise self._cannot_store(exc) from exc

    def _check(self) -> None:
        if self._closing.is_set():
            raise Unavailable("the fetch of an archive was called off")

    def _pause(self, seconds: float) -> None:
        """Wait so long, or less when the store is closed."""
        self._check()
        self._closing.wait(seconds)
        self._check()

    def _ensure(self, archive: Stored) -> None:
        started = time.monotonic()
        outcome: FetchOutcome | None = "unavailable"
        try:
            damage = self._damage(archive)
            if damage is None:
                outcome = None
                self._layout.mark_used(archive.sha256)
            else:
                outcome = self._fetch(archive)
        except ArchiveCorrupt:
            outcome = "corrupt"
            raise
        except ObjectMissing as exc:
            outcome = "missing"
            raise LoadFailed(f"the registry has no archive {archive.sha256[:12]}…: publish the version again") from exc
        except NoRoom as exc:
            outcome = "no_space"
            raise Unavailable(
                f"no room for an archive in {self._layout.root}: {exc}", retry_after_s=_RETRY_NO_ROOM_S
            ) from exc
        except OSError as exc:
            outcome = "no_space"
            raise self._cannot_store(exc) from exc
        finally:
            if outcome is not None:
                self._observe(outcome, time.monotonic() - started)

    def _fetch(self, archive: Stored) -> FetchOutcome:
        self._layout.make()
        for _ in range(_FENCED_MAX):
            # Before the turn is waited for: see marway.objects.locks.
            partial = Partial(self._layout, archive.sha256, self._files)
            try:
                return self._take_turn(archive, partial)
            except _Arrived:
                if self._damage(archive) is None:
                    return "shared"
            except Fenced:
                logger.warning("another process took over the download of %s: no progress was seen", archive.sha256)
            finally:
                partial.close()
        raise Unavailable(f"others took this process for stopped {_FENCED_MAX} times while it fetched an archive")

    def _take_turn(self, archive: Stored, partial: Partial) -> FetchOutcome:
        path = self._layout.path(archive)
        before = _identity_at(path)

        def pause(seconds: float) -> None:
            self._pause(seconds)
            if _identity_at(path) not in (None, before):
                raise _Arrived

        with fenced_lock(
            self._layout.fetch_lock(archive.sha256),
            lambda: self._layout.fence(archive.sha256),
            stuck_after_s=self._stuck_after_s,
            pause=pause,
            pause_max_s=_PAUSE_MAX_S,
        ) as show_progress:
            if partial.is_removed:
                raise Fenced
            damage = self._damage(archive)
            if damage is None:
                return "shared"
            if damage:
                began = time.monotonic()
                self._space.quarantine(path, archive, damage)
                self._observe("corrupt", time.monotonic() - began)
            self._space.reserve(partial, archive.size_bytes, self._pause)
            self._download(archive, partial, show_progress)
        return "ok"

    def _download(self, archive: Stored, partial: Partial, show_progress: Callable[[], None]) -> None:
        shown, shown_at = 0, time.monotonic()

        def progress(done: int) -> None:
            nonlocal shown, shown_at
            self._check()
            now = time.monotonic()
            if done > shown and now - shown_at > self._stuck_after_s / _SHOWN_PER_STUCK:
                shown, shown_at = done, now
                show_progress()
                if partial.is_removed:
                    raise Fenced

        size_bytes, sha256 = download(
            self._registry, archive, partial.descriptor, self._files, streams=self._streams, progress=progress
        )
        if sha256 != archive.sha256:
            self._files.resize(partial.descriptor, size_bytes)
            what = (
                f"has other bytes (sha256 {sha256[:12]}…)"
                if size_bytes == archive.size_bytes
                else f"has {size_bytes} bytes of {archive.size_bytes}"
            )
            reason = (
                f"the registry's archive {archive.sha256[:12]}… {what}: it was damaged; "
                "publish the version again from its source"
            )
            self._space.quarantine(partial.path, archive, reason)
            raise ArchiveCorrupt(reason)
        path = self._layout.path(archive)
        partial.publish(path)
        self._whole[archive.sha256] = _identity(os.fstat(partial.descriptor))
        self._layout.mark_used(archive.sha256)

    def _damage(self, archive: Stored) -> str | None:
        """Return None when the archive is here and whole, '' when it is not here, else what is wrong with it."""
        path = self._layout.path(archive)
        try:
            with path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_size != archive.size_bytes:
                    return f"{path} has {about.st_size} bytes, not {archive.size_bytes}: it was damaged on this disk"
                if self._whole.get(archive.sha256) == _identity(about):
                    return None
                digest = hashlib.sha256()
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    self._check()
        except FileNotFoundError:
            return ""
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return f"{path} cannot be read: {exc.strerror}: this disk fails"
        if digest.hexdigest() != archive.sha256:
            return f"{path} has other bytes (sha256 {digest.hexdigest()[:12]}…): it was damaged on this disk"
        self._whole[archive.sha256] = _identity(about)
        return None

    def _cannot_store(self, exc: OSError) -> Unavailable:
        return Unavailable(f"cannot store an archive in {self._layout.root}: {exc.strerror or exc}")


def _identity(about: os.stat_result) -> Identity:
    return about.st_ino, about.st_size, about.st_mtime_ns


def _identity_at(path: Path) -> Identity | None:
    try:
        return _identity(path.stat())
    except OSError:
        return None
