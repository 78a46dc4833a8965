"""Files that are read again when they change: what a gateway is told of secrets is replaced without a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from marway.errors import InvalidSettings

__all__ = ["FollowedFile", "Reading"]

T = TypeVar("T")

_LOOK_S: Final = 0.5
"""How often the time and the inode of files are looked at. A Kubernetes secret changes by a new inode behind a link."""
_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH
_log = logging.getLogger(__name__)

Signature = tuple[int, int, int, int]


class Reading:
    """One reading of a file and of those that it names.

    Attributes:
        signatures: What tells each from the next that is put in its place.
    """

    def __init__(self) -> None:
        self.signatures: dict[Path, Signature] = {}
        self._open: dict[Path, bool] = {}

    def text(self, path: Path, what: str) -> str:
        """Return what is in a file.

        Args:
            path: Which.
            what: What it is called in messages, such as `the token file`.

        Raises:
            InvalidSettings: It cannot be read, or is no text.
        """
        try:
            with path.open("rb") as handle:
                found = os.fstat(handle.fileno())
                text = handle.read().decode()
        except OSError as exc:
            raise InvalidSettings(f"cannot read {what} {path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise InvalidSettings(f"{what} {path} is no text") from exc
        self.signatures[path] = _signature(found)
        self._open[path] = bool(stat.S_IMODE(found.st_mode) & _OTHERS)
        return text

    def secret(self, path: Path, what: str) -> None:
        """Warn of a file that was read and holds a secret, if others than its owner can read it."""
        if self._open[path]:
            _log.warning("%s %s can be read by others than its owner: chmod 600 it", what, path)


class FollowedFile(Generic[T]):
    """What stands in a file, as it is now.

    Args:
        path: The file.
        read: Returns what it says, with what it reads by the `Reading` that it is given; raises `InvalidSettings`.
        what: What is in it, for the log: `the tokens` stay as they were.

    Attributes:
        value: What it says. While it cannot be read the last one stays.

    Raises:
        InvalidSettings: It cannot be used.
    """

    def __init__(self, path: Path, read: Callable[[Reading], T], *, what: str) -> None:
        self.path = path
        self._what = what
        self._read = read
        self._trouble = ""
        reading = Reading()
        self.value = read(reading)
        self._signatures = reading.signatures

    async def follow(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file if it, or one that it names, has changed. Blocks."""
        try:
            if all(_signature(path.stat()) == known for path, known in self._signatures.items()):
                return
            reading = Reading()
            self.value = self._read(reading)
        except (OSError, InvalidSettings) as exc:
            trouble = exc.message if isinstance(exc, InvalidSettings) else f"{exc.filename}: {exc.strerror}"
            if trouble != self._trouble:
                _log.warning("%s stay as they were: %s", self._what, trouble)
            self._trouble = trouble
            return
        self._signatures = reading.signatures
        self._trouble = ""
        _log.info("%s were read again from %s", self._what, self.path)


def _signature(found: os.stat_result) -> Signature:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
