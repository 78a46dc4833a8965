"""Places a finished file or directory under its name in one step; an interrupted one leaves nothing.

Output is written under a hidden name in the directory it will stand in, and linked or renamed to its
own when it is complete and on the disk. The writer holds a lock (flock) on what it writes, so that one
that a killed process left behind is told for sure from one that is being written: the next pack into that
directory removes those whose lock is free and that this host made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from marway.archives.entries import reason
from marway.errors import InvalidArchive

__all__ = ["atomic_directory", "atomic_file", "check_target", "is_temporary", "signals_raise"]

_TEMPORARY = re.compile(r"\.marway-pack\.([0-9a-f]{8})\.[0-9a-f]{16}")
_ASIDE = ".marway-replaced"
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class _Interrupted(BaseException):
    """A signal that ends this process came; it is sent again once all is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def is_temporary(name: str) -> bool:
    """Return whether ``name`` is one of the hidden names that outputs are written under."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def atomic_file(final: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Give a file to write, read and seek; place it as ``final`` if the block ends well.

    Raises:
        InvalidArchive: ``final`` exists and not ``force``, or its directory cannot be written.
    """
    with _temporary(final, force=force, folder=False) as (temporary, fd), os.fdopen(fd, "w+b", closefd=False) as file:
        yield file
        file.flush()
        os.fsync(fd)
        _place(temporary, final, force=force)


@contextlib.contextmanager
def atomic_directory(final: Path, *, force: bool) -> Iterator[Path]:
    """Give an empty directory to fill; rename it to ``final`` if the block ends well.

    With ``force`` a directory that is there is moved aside first, so for a moment there is none.

    Raises:
        InvalidArchive: As `atomic_file`.
    """
    with _temporary(final, force=force, folder=True) as (temporary, _):
        yield temporary
        aside = final.with_name(f".{final.name}.{secrets.token_hex(4)}{_ASIDE}")
        replaces = force and final.exists()
        if replaces:
            final.rename(aside)
        try:
            temporary.rename(final)
        except BaseException:
            if replaces:
                aside.rename(final)
            raise
        if replaces:
            _sync_directory(final.parent)
            shutil.rmtree(aside)


@contextlib.contextmanager
def _temporary(final: Path, *, force: bool, folder: bool) -> Iterator[tuple[Path, int]]:
    """Give a locked temporary file or folder beside ``final``, which the block moves there; it never stays."""
    check_target(final, force=force, directory=folder)
    try:
        with signals_raise():
            _remove_stale(final.parent)
            temporary, fd = _create(final.parent, folder=folder)
            try:
                yield temporary, fd
            finally:
                os.close(fd)
                if folder:
                    shutil.rmtree(temporary, ignore_errors=True)
                else:
                    temporary.unlink(missing_ok=True)
            _sync_directory(final.parent)
    except OSError as exc:
        raise InvalidArchive(f"{final} cannot be written: {reason(exc)}") from exc


def check_target(final: Path, *, force: bool, directory: bool) -> None:
    """Refuse a place that an output cannot be put at, before any work is done for it.

    Raises:
        InvalidArchive: It exists and not ``force``, or its directory does not.
    """
    if not final.parent.is_dir():
        raise InvalidArchive(f"--export-path {final.parent} is not a directory")
    if not os.path.lexists(final):
        return
    if not force:
        raise _exists(final)
    if final.is_dir() != directory:
        raise InvalidArchive(f"{final} is {'a directory' if not directory else 'no directory'}: remove it first")


def _exists(final: Path) -> InvalidArchive:
    return InvalidArchive(f"{final} exists: give --force (-f) to replace it")


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Let a signal that would end this process end the block first, then the process all the same.

    A process that handles the signal itself keeps its handler; a thread cannot have one.
    """
    wanted = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is signal.SIG_DFL
    ]

    if not wanted:  # also within another such block, which must see what its own handler raises
        yield
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in wanted:
            signal.signal(each, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        raise _Interrupted(number)

    came: int | None = None
    try:
        for number in wanted:
            signal.signal(number, interrupt)
        yield
    except _Interrupted as exc:
        came = exc.number
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)
    if came is not None:
        os.kill(os.getpid(), came)


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _create(directory: Path, *, folder: bool) -> tuple[Path, int]:
    """Create and lock a temporary file or folder; one that a cleaner took before it was locked is made anew."""
    flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
    while True:
        path = directory / f".marway-pack.{_host()}.{secrets.token_hex(8)}"
        if folder:
            path.mkdir()
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):  # a file system without locks: then nobody cleans up there either
                fcntl.flock(fd, fcntl.LOCK_EX)
            if path.exists():
                return path, fd
            os.close(fd)


def _place(temporary: Path, final: Path, *, force: bool) -> None:
    if force:
        temporary.replace(final)
        return
    try:
        os.link(temporary, final)
    except FileExistsError as exc:
        raise _exists(final) from exc
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        # No hard links here: reserve the name, so that of two packs one is told, then replace it.
        try:
            os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        except FileExistsError as there:
            raise _exists(final) from there
        temporary.replace(final)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot sync a directory
            os.fsync(fd)
    finally:
        os.close(fd)


def _remove_stale(directory: Path) -> None:
    """Remove what killed packs of this host left in ``directory``: their locks are free."""
    for path in directory.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or match[1] != _host():
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(fd)
