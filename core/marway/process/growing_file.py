"""A log that is read while it grows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["GrowingFile"]

_READ_BYTES: Final = 1 << 20
_LINE_MAX: Final = 262_144


class GrowingFile:
    """A file that is appended to, emptied, or renamed and begun anew.

    Args:
        path: Where it is, or will be.
        whole: Whether what it holds already is read as well.
    """

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._begun = b""
        if path.exists():
            self._file = path.open("rb")
            if not whole:
                self._file.seek(0, 2)

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that came since the last call."""
        while True:
            if self._file is None:
                try:
                    self._file = self.path.open("rb")
                except FileNotFoundError:
                    return
            yield from self._rest(self._file)
            if not self._renamed(self._file):
                return
            yield from self._rest(self._file)  # what came before the renaming was seen
            self._file.close()
            self._file, self._begun = None, b""

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rest(self, file: BinaryIO) -> Iterator[str]:
        while data := file.read(_READ_BYTES):
            *lines, self._begun = (self._begun + data).split(b"\n")
            if len(self._begun) > _LINE_MAX:
                lines.append(self._begun)
                self._begun = b""
            for line in lines:
                yield line[:_LINE_MAX].decode(errors="replace")

    def _renamed(self, file: BinaryIO) -> bool:
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False  # until there is another
        if now.st_ino != os.fstat(file.fileno()).st_ino:
            return True
        if now.st_size < file.tell():  # emptied: by a new start
            file.seek(0)
            self._begun = b""
        return False
