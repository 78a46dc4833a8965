"""A file of bearer tokens that is read again when it changes, so that tokens are replaced without a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path
from typing import Final

from marway.errors import InvalidSettings
from marway.tokens import Tokens, parse_tokens

__all__ = ["TokenFile"]

_LOOK_S: Final = 0.5
"""How often the file's time and inode are looked at. A Kubernetes secret changes by a new inode behind a link."""
_log = logging.getLogger(__name__)

Signature = tuple[int, int, int, int]


class TokenFile:
    """The tokens in a file, as they are now.

    Args:
        path: The file; see `marway.tokens` for what stands in it.

    Attributes:
        tokens: Those that are accepted. While the file cannot be read the last ones stay.

    Raises:
        InvalidSettings: It cannot be read, holds no token or something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trouble = ""
        self._signature, self.tokens = self._read()
        if not self.tokens:
            raise InvalidSettings(f"the token file {path} holds no token: write one on a line of its own")

    async def follow(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file if it has changed. Blocks."""
        try:
            if _signature(self.path.stat()) == self._signature:
                return
            self._signature, self.tokens = self._read()
        except (OSError, InvalidSettings) as exc:
            said = exc.message if isinstance(exc, InvalidSettings) else f"{self.path}: {exc.strerror}"
            if said != self._trouble:
                _log.warning("the tokens stay as they were: %s", said)
            self._trouble = said
            return
        self._trouble = ""
        _log.info("token file %s read again: %d tokens", self.path, len(self.tokens))

    def _read(self) -> tuple[Signature, Tokens]:
        try:
            with self.path.open("rb") as handle:
                found = os.fstat(handle.fileno())
                text = handle.read().decode()
        except OSError as exc:
            raise InvalidSettings(f"cannot read the token file {self.path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise InvalidSettings(f"the token file {self.path} is no text") from exc
        if stat.S_IMODE(found.st_mode) & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
            _log.warning("the token file %s can be read by others than its owner: chmod 600 it", self.path)
        return _signature(found), parse_tokens(text, source=f"the token file {self.path}")


def _signature(found: os.stat_result) -> Signature:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
