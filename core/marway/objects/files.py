"""Files: the few calls by which a disk is changed, in one place, as a test records them to cut the power; and in their
terms, files below one root that last once they are seen, one whose digest is checked, and a part of one as a stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from marway.errors import ArchiveCorrupt, RegistryUnavailable
from marway.objects.base import ObjectExists

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["CheckedFile", "DurableFiles", "Files", "Window"]


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


class DurableFiles:
    """Makes files below ``root``, each in a temporary file first.

    Args:
        root: The directory; it is made by the first write.
        files: How the disk is changed.
    """

    def __init__(self, root: Path, files: Files) -> None:
        self._root = root
        self._files = files
        self._lasting: set[Path] = set()

    @contextlib.contextmanager
    def temporary(self, directory: Path, prefix: str) -> Iterator[tuple[int, Path]]:
        """Yield descriptor and path of a temporary file in ``directory``, which is made; the file goes in the end."""
        self._make_lasting(directory)
        try:
            descriptor, temporary = self._files.create_temporary(directory, prefix)
        except FileNotFoundError:  # somebody removed the directory since this process made sure of it
            self._lasting.clear()
            self._make_lasting(directory)
            descriptor, temporary = self._files.create_temporary(directory, prefix)
        try:
            yield descriptor, temporary
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(temporary)

    def link(self, descriptor: int, temporary: Path, target: Path) -> None:
        """Let a temporary file be seen as ``target``.

        Raises:
            ObjectExists: There is one already, which lasts from now on.
        """
        self._files.sync(descriptor)
        try:
            self._files.link(temporary, target)
        except FileExistsError as exc:
            self._files.sync_directory(target.parent)
            raise ObjectExists(target.name) from exc
        except FileNotFoundError as exc:
            raise RegistryUnavailable(
                f"registry directory {self._root}: {temporary.name} was removed while it was being written: try again"
            ) from exc
        self._files.sync_directory(target.parent)

    def not_a_directory(self, path: Path) -> RegistryUnavailable:
        """Return the error about a file where a directory should be."""
        return RegistryUnavailable(f"registry directory {self._root}: {path} is a file, not a directory")

    def _make_lasting(self, directory: Path) -> None:
        """Make a directory and those above it, each fsynced in its parent at least once by this process."""
        if directory in self._lasting:
            return
        above = directory.parent
        if directory != self._root:
            self._make_lasting(above)
        elif not above.exists():
            above.mkdir(parents=True, exist_ok=True)
        made = self._files.make_directory(directory)
        if not made and not directory.is_dir():
            raise self.not_a_directory(directory)
        # What lies above the root is none of ours: it may not even be readable.
        if made or directory != self._root:
            self._files.sync_directory(above)
        self._lasting.add(directory)


class CheckedFile:
    """A file that is read forward once, and has to have the digest ``sha256`` then."""

    def __init__(self, file: BinaryIO, path: Path, sha256: str) -> None:
        self._file = file
        self._path = path
        self.sha256 = sha256
        self._digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._digest.update(data)
        return data

    def check(self) -> None:
        """Check what was read.

        Raises:
            ArchiveCorrupt: It has another digest.
        """
        if self._digest.hexdigest() != self.sha256:
            raise ArchiveCorrupt(
                f"{self._path}: its bytes have sha256 {self._digest.hexdigest()}, not {self.sha256}: "
                "the file changed while it was being read; try again"
            )


class Window(io.RawIOBase):
    """What a file has before byte ``end``, from where it stands; positions are the file's own.

    Args:
        file: Is not closed with this.
        end: First byte that is not read.
    """

    def __init__(self, file: BinaryIO, end: int) -> None:
        super().__init__()
        self._file = file
        self._end = end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            size = self._file.seek(0, io.SEEK_END)
            return self._file.seek(max(0, min(size, self._end) + offset))
        return self._file.seek(offset, whence)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._file.read(max(0, min(len(view), self._end - self._file.tell())))
        view[: len(data)] = data
        return len(data)
