"""Locks between processes that neither a killed nor a stopped holder keeps for ever.

`flock` goes with its process, which settles kill -9. A holder that is stopped (SIGSTOP, a frozen container, a hung
disk) keeps it, so whoever has seen the same holder for `STUCK_AFTER_S` puts a new lock file in the old one's place
and *fences* the holder: removes the temporary files that it would rename. This is safe because

- a writer creates its temporary file before it takes the lock, and checks, lock in hand, that the lock file is still
  the current one;
- a fence first replaces the lock file and then removes the temporary files.

So a holder whose check came first has its file removed, and its rename fails; one whose check comes later sees that
its lock is not the current one. In neither case does it overwrite what others wrote meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["STUCK_AFTER_S", "fenced_lock", "patient_lock"]

STUCK_AFTER_S = 5.0
"""A holder works for milliseconds; one seen for so long is stopped."""
_PAUSE_MAX_S = 0.02
_TOKEN_BYTES = 16


@contextlib.contextmanager
def fenced_lock(path: Path, fence: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file ``path``.

    Args:
        path: The lock file; its directory exists.
        fence: Removes the temporary files of all who wait for or hold this lock.
    """
    descriptor = _take(path, fence)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def patient_lock(path: Path, *, patience_s: float) -> Iterator[None]:
    """Hold the lock file ``path``, or go on without it after ``patience_s``."""
    deadline = time.monotonic() + patience_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _locked(descriptor) and time.monotonic() < deadline:
            time.sleep(random.uniform(0, _PAUSE_MAX_S))  # a blocking flock cannot be given up
        yield
    finally:
        os.close(descriptor)


def _take(path: Path, fence: Callable[[], None]) -> int:
    seen: tuple[int, bytes] | None = None
    since = 0.0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _locked(descriptor):
                if _is_current(descriptor, path):
                    os.pwrite(descriptor, os.urandom(_TOKEN_BYTES), 0)
                    return_value, descriptor = descriptor, -1
                    return return_value
                continue
            holder = (os.fstat(descriptor).st_ino, os.pread(descriptor, _TOKEN_BYTES, 0))
            now = time.monotonic()
            if holder != seen:
                seen, since = holder, now
            elif now - since > STUCK_AFTER_S:
                if _is_current(descriptor, path):
                    _put_new(path)
                    fence()
                seen = None
                continue
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        time.sleep(random.uniform(0, _PAUSE_MAX_S))  # a blocking flock would wait for a stopped holder for ever


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
