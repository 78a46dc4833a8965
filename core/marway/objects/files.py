"""The few calls by which the directory store changes a disk, in one place: a test records them to cut the power."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["Files"]


class Files:
    """Changes of a file system. Only `sync` and `sync_directory` make them last."""

    def make_directory(self, path: Path) -> bool:
        """Make one directory; return False if it was there."""
        try:
            path.mkdir()
        except FileExistsError:
            return False
        return True

    def create_temporary(self, directory: Path, prefix: str) -> tuple[int, Path]:
        """Create an empty file of a new name that all may read, and return its descriptor and path."""
        descriptor, name = tempfile.mkstemp(prefix=prefix, dir=directory)
        os.fchmod(descriptor, 0o644)  # mkstemp's 0600 would hide the object from a pod that runs as another user
        return descriptor, Path(name)

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def write_at(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of ``data`` from byte ``offset`` on; the file's position is neither used nor moved."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def resize(self, descriptor: int, size: int) -> None:
        """Give a file a size; what it had not yet reads as zeros and takes no room."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Bring a file's bytes to stable storage."""
        os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Bring the names in a directory to stable storage."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, which must be free."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file over another."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()
