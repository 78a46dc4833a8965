"""Locks between processes that neither a killed nor a stopped holder keeps for ever.

`flock` goes with its process, which settles kill -9. A holder that is stopped (SIGSTOP, a frozen container, a hung
disk) keeps it, so whoever has seen the same holder make no progress for `STUCK_AFTER_S` puts a new lock file in the old
one's place and *fences* the holder: removes the temporary files that it would rename. This is safe because

- a writer creates its temporary file before it takes the lock, and checks, lock in hand, that the lock file is still
  the current one;
- a fence first replaces the lock file and then removes the temporary files.

So a holder whose check came first has its file removed, and its rename fails; one whose check comes later sees that
its lock is not the current one. In neither case does it overwrite what others wrote meanwhile.

A holder shows itself, and that it makes progress, by new bytes in the lock file. How long these stayed the same is
measured by each who waits, on its own monotonic clock: clocks of different machines are never compared. On a file
system shared between machines this assumes that `flock` excludes machines too, which NFS does on Linux since 2.6.12
(not with `local_lock`, `nolock`), that a process that dies with its machine loses its locks (NFSv4 leases: about 90 s),
and that what one wrote and synced is what another reads that opens the file after that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["STUCK_AFTER_S", "Pause", "fenced_lock", "patient_lock", "take_shared", "try_exclusive"]

STUCK_AFTER_S = 5.0
"""A holder works for milliseconds, unless it says otherwise; one seen for so long is stopped."""
Pause = Callable[[float], object]
"""Sleeps for so many seconds between two attempts; raises to give the attempts up."""
_PAUSE_MAX_S = 0.02
_TOKEN_BYTES = 16


@contextlib.contextmanager
def fenced_lock(
    path: Path,
    fence: Callable[[], None],
    *,
    stuck_after_s: float | None = None,
    pause: Pause = time.sleep,
    pause_max_s: float = _PAUSE_MAX_S,
) -> Iterator[Callable[[], None]]:
    """Hold the lock file ``path``; yields what its holder calls to show progress.

    Args:
        path: The lock file; its directory exists.
        fence: Removes the temporary files of all who wait for or hold this lock.
        stuck_after_s: How long a holder may show no progress, in seconds; None means `STUCK_AFTER_S`.
        pause: How to wait.
        pause_max_s: Longest wait between two attempts, in seconds.
    """
    descriptor = _take(path, fence, fcntl.LOCK_EX, stuck_after_s, pause, pause_max_s)

    def progressed() -> None:
        _sign(descriptor)
        with contextlib.suppress(OSError):  # a full disk: at worst others take this holder for stopped
            os.fdatasync(descriptor)  # another machine must see it

    try:
        yield progressed
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def patient_lock(path: Path, *, patience_s: float) -> Iterator[None]:
    """Hold the lock file ``path``, or go on without it after ``patience_s``."""
    deadline = time.monotonic() + patience_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _locked(descriptor, fcntl.LOCK_EX) and time.monotonic() < deadline:
            time.sleep(random.uniform(0, _PAUSE_MAX_S))  # a blocking flock cannot be given up
        yield
    finally:
        os.close(descriptor)


def take_shared(path: Path, *, pause: Pause = time.sleep) -> int:
    """Hold the lock file ``path`` together with others; closing the descriptor returned lets go of it.

    Who holds it exclusively, by `try_exclusive`, does so for an instant: one seen for `STUCK_AFTER_S` loses it.
    """
    return _take(path, lambda: None, fcntl.LOCK_SH, None, pause, _PAUSE_MAX_S)


def try_exclusive(path: Path) -> int | None:
    """Return a descriptor that holds the lock file ``path`` alone until it is closed, or None if others hold it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if _locked(descriptor, fcntl.LOCK_EX) and _is_current(descriptor, path):
        _sign(descriptor)
        return descriptor
    os.close(descriptor)
    return None


def _take(
    path: Path,
    fence: Callable[[], None],
    operation: int,
    stuck_after_s: float | None,
    pause: Pause,
    pause_max_s: float,
) -> int:
    stuck_after_s = STUCK_AFTER_S if stuck_after_s is None else stuck_after_s
    seen: tuple[int, bytes] | None = None
    since = 0.0
    # Read-only, a lock file that is there can be shared in a directory that cannot be written.
    access = os.O_RDONLY if operation == fcntl.LOCK_SH else os.O_RDWR
    while True:
        descriptor = os.open(path, access | os.O_CREAT, 0o666)
        try:
            if _locked(descriptor, operation):
                if _is_current(descriptor, path):
                    if operation == fcntl.LOCK_EX:
                        _sign(descriptor)
                    return_value, descriptor = descriptor, -1
                    return return_value
                continue
            holder = (os.fstat(descriptor).st_ino, os.pread(descriptor, _TOKEN_BYTES, 0))
            now = time.monotonic()
            if holder != seen:
                seen, since = holder, now
            elif now - since > stuck_after_s:
                if _is_current(descriptor, path):
                    _put_new(path)
                    fence()
                seen = None
                continue
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        pause(random.uniform(0, pause_max_s))  # a blocking flock would wait for a stopped holder for ever


def _sign(descriptor: int) -> None:
    # Unsigned, on a disk that is full, it is only taken for the holder before it: perhaps fenced too soon.
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, os.urandom(_TOKEN_BYTES), 0)


def _locked(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _put_new(path: Path) -> None:
    fresh = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    fresh.touch(exist_ok=False)
    fresh.replace(path)
