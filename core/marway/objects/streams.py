"""Files as they are read: a part as a stream of its own, and one whose digest is checked at the end."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from marway.errors import ArchiveCorrupt

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["CheckedFile", "Window"]


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
