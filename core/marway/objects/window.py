"""A part of a file as a stream of its own."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Window"]


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
