"""The archive of Java's parsed and verified classes that makes TorchServe start in half the time.

Class data sharing (JEP 310, JEP 350): Java maps the classes from a file in place of reading, parsing and verifying some
five thousand of them at each start. Java can also write such a file as it ends; that takes seconds in which a pod
should be gone, so here it is written ahead by a process of its own: when an image is built (`marway runtime
--write-class-archive`), else in the background once TorchServe answers. Java refuses an archive that is of another
Java, of other jars or damaged, and starts without it.

`java_classes.txt` names the classes: those of a start, a registration and predictions. docs/runtime.md says how it is
made.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from marway.process.die_with_parent import dies_with_me
from marway_runtime.engines.torchserve.configuration import class_path, java
from marway_runtime.settings import RuntimeSettings

__all__ = ["ClassArchive", "class_archive"]

logger = logging.getLogger(__name__)

_CLASSES = Path(__file__).with_name("java_classes.txt")
_HEAP = "-Xmx128m"  # the process takes 220 MiB for three seconds


class ClassArchive:
    """The archive for this Java and these jars in a directory that runtimes may share, and that may be read-only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / f"classes-{_identity()}.jsa"
        self._writer: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process that writes it, while there is one."""
        writer = self._writer
        return writer.pid if writer is not None and writer.returncode is None else None

    def options(self) -> list[str]:
        """Return the options that start Java with the archive, where it exists."""
        if not self.path.is_file():
            return []
        return [
            f"-XX:SharedArchiveFile={self.path}",
            "-Xshare:auto",  # the default, given because everything here rests on it: no archive ever stops a start
            # Otherwise Java checks the header alone, and dies of a damaged rest. Takes 20 ms.
            "-XX:+VerifySharedSpaces",
        ]

    def taken_by(self, pid: int) -> bool:
        """Return whether a Java has mapped the archive; where that cannot be known, that it has."""
        try:
            return self.path.name in Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return True

    def discard(self) -> None:
        """Remove an archive that is no good, if that is allowed."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    async def write(self, *, home: Path, wait: bool = False) -> bool:
        """Write the archive where there is none; return whether it exists now.

        What goes wrong is logged and costs nothing but the time that it would have saved. While another process is
        writing, ``wait`` waits for it (and blocks). ``home``, on the command line, says whose process it is.
        """
        try:
            with self._alone(wait=wait) as alone:
                if alone and not self.path.exists():
                    await self._write(home)
        except OSError as exc:
            logger.info("no archive of Java's classes can be kept in %s: %s", self._directory, exc.strerror)
        return self.path.exists()

    async def _write(self, home: Path) -> None:
        started = time.monotonic()
        for leftover in self._directory.glob(".classes-*.jsa"):
            leftover.unlink()
        written = self._directory / f".{self.path.name}"
        nice = shutil.which("nice")
        command = [
            *((nice, "-n", "19") if nice is not None else ()),  # loading models and answering go first
            *(str(java()), f"-Dmarway.home={home}", "-Xshare:dump"),
            *(f"-XX:SharedClassListFile={_CLASSES}", f"-XX:SharedArchiveFile={written}"),
            "-XX:+UseG1GC",  # the only collector that puts objects of the heap into an archive; the others read them
            *(_HEAP, "-Xlog:disable", "-Xlog:all=error:stderr", "-cp", class_path()),
        ]
        self._writer = process = await asyncio.create_subprocess_exec(
            *dies_with_me(command),
            env={},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        _put_session_last(process.pid)
        try:
            _, errors = await process.communicate()
            if process.returncode != 0 or not written.exists():
                words = errors.decode(errors="replace").strip()[-300:]
                logger.warning("Java wrote no archive of its classes (status %s): %s", process.returncode, words)
                return
            await asyncio.to_thread(_synced, written)
            for older in self._directory.glob("classes-*.jsa"):  # of another Java, or other jars
                older.unlink()
            written.replace(self.path)
            size, took = self.path.stat().st_size / 2**20, time.monotonic() - started
            logger.info("wrote the archive of Java's classes: %.0f MiB in %.1f s; the next start is faster", size, took)
        finally:
            if process.returncode is None:  # cancelled
                process.kill()
                await process.wait()
            with contextlib.suppress(OSError):
                written.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self, *, wait: bool) -> Iterator[bool]:
        """Keep every other process from writing here; False where one is writing and is not waited for."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def class_archive(settings: RuntimeSettings) -> ClassArchive:
    """Return the archive of these settings, whether it exists or not."""
    return ClassArchive((settings.class_archives or settings.runtime_dir / "java").absolute())


def _identity() -> str:
    """Return what tells archives apart: Java, the jars as Java itself knows them again, and the list of classes."""
    digest = hashlib.sha256(_CLASSES.read_bytes())
    for word in (str(java()), *class_path().split(os.pathsep)):
        at = Path(word).stat()
        digest.update(f"{word}\0{at.st_size}\0{int(at.st_mtime)}\0".encode())
    with contextlib.suppress(OSError):
        digest.update((java().parents[1] / "release").read_bytes())
    return digest.hexdigest()[:16]


def _put_session_last(pid: int) -> None:
    """Where the kernel shares processors out by sessions (autogroup), nice counts within a session alone."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("19")


def _synced(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
