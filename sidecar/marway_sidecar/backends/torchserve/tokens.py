"""TorchServe's tokens, where it asks for them: `key_file.json`, read again and renewed when one is refused.

TorchServe writes the file in its working directory at each start, not atomically. It holds a key for inference, one for
management and the API key with which `GET /token?type=…` of the management API makes a new one in the place of either.
Keys expire after an hour by default, and nobody but us renews them.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Literal

import httpx

from marway.errors import MarwayError, RuntimeDown

__all__ = ["Kind", "Tokens"]

Kind = Literal["inference", "management"]

_READ_TRIES = 50
_READ_PAUSE_S = 0.02


class Tokens:
    """The tokens of one TorchServe.

    Args:
        file: Its `key_file.json`.
        management: A client of its management API.
    """

    def __init__(self, file: Path, management: httpx.AsyncClient) -> None:
        self._file = file
        self._management = management
        self._keys: dict[str, str] = {}
        self._renewing = asyncio.Lock()

    async def get(self, kind: Kind) -> str:
        """Return the token last known.

        Raises:
            MarwayError: The file is not there or cannot be read.
        """
        if kind not in self._keys:
            self._keys = await self._read()
        return self._keys[kind]

    async def renew(self, kind: Kind, refused: str) -> None:
        """Replace a token that was refused: by the file's when that is another, else by a new one.

        Raises:
            MarwayError: No new one could be had.
            RuntimeDown: TorchServe does not answer.
        """
        async with self._renewing:
            if self._keys.get(kind) != refused:
                return  # another call has renewed it
            self._keys = await self._read()
            if self._keys[kind] != refused:
                return
            headers = {"authorization": f"Bearer {self._keys['API']}"}
            try:
                answer = await self._management.get("/token", params={"type": kind}, headers=headers)
            except httpx.TransportError as exc:
                raise RuntimeDown(f"TorchServe does not answer: {exc}") from exc
            if answer.status_code != httpx.codes.OK:
                raise MarwayError(f"TorchServe refused to renew its {kind} token: is {self._file} its own key file?")
            self._keys = await self._read()

    async def _read(self) -> dict[str, str]:
        # A file that is being written is short or empty for a moment.
        for _ in range(_READ_TRIES):
            try:
                return await asyncio.to_thread(_keys_of, self._file)
            except (OSError, ValueError, KeyError, TypeError) as exc:
                error = exc
            await asyncio.sleep(_READ_PAUSE_S)
        raise MarwayError(f"TorchServe's key file {self._file} cannot be read: {error!r}") from error


def _keys_of(file: Path) -> dict[str, str]:
    document = json.loads(file.read_bytes())
    return {kind: str(document[kind]["key"]) for kind in ("inference", "management", "API")}
