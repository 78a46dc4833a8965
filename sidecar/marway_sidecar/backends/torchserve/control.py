"""The client of `runtime.sock`: what the runtime says about its workers (`marway.wire.runtime`)."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from marway.errors import MarwayError, RuntimeDown
from marway.wire.runtime import RUNTIME_SOCKET, RuntimeWorkers, TemporaryRoom

__all__ = ["RuntimeControl"]

_TIMEOUT_S = 10.0
_Document = TypeVar("_Document", bound=BaseModel)


class RuntimeControl:
    """Asks the runtime that started TorchServe.

    Args:
        runtime_dir: The directory shared with it.
    """

    def __init__(self, runtime_dir: Path) -> None:
        # A Unix socket has no certificates; reading all that the machine trusts would hold the event loop for 20 ms.
        transport = httpx.AsyncHTTPTransport(uds=str(runtime_dir / RUNTIME_SOCKET), verify=False)
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://runtime", timeout=_TIMEOUT_S, trust_env=False
        )

    async def workers(self) -> RuntimeWorkers:
        """Return every worker process that lives, with its memory.

        Raises:
            RuntimeDown: The runtime does not answer.
        """
        return await self._request("GET", "/workers", RuntimeWorkers)

    async def remove_leftovers(self) -> TemporaryRoom:
        """Have what failed loads left unpacked removed; no registration may be under way.

        Raises:
            RuntimeDown: The runtime does not answer.
        """
        return await self._request("DELETE", "/leftovers", TemporaryRoom)

    async def _request(self, method: str, path: str, kind: type[_Document]) -> _Document:
        try:
            answer = await self._client.request(method, path)
        except httpx.TransportError as exc:
            raise RuntimeDown(f"the runtime does not answer on {RUNTIME_SOCKET}: {exc}") from exc
        if answer.status_code != httpx.codes.OK:
            raise MarwayError(f"the runtime answered {answer.status_code} to {method} {path}")
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as exc:
            message = f"the runtime's answer to {method} {path} cannot be read: {exc.error_count()} errors"
            raise MarwayError(message) from exc

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()
