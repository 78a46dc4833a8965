"""The connections to one Multi Model Server: its inference API and its management API, both REST."""

from __future__ import annotations

from typing import Any, Final, Literal

import httpx

from marway.errors import InvalidRequest, ModelError, RuntimeDown, clip
from marway_sidecar.backends.base import NotSent

__all__ = ["MANAGEMENT_TIMEOUT_S", "Connection"]

MANAGEMENT_TIMEOUT_S: Final = 30.0

_BAD_HTTP: Final = ("illegal header", "receive buffer too long")
"""In h11's errors for headers that are malformed or too long: the server itself is well."""


class Connection:
    """Connections to one server, opened when first used.

    Args:
        inference: URL of its inference API.
        management: URL of its management API.
    """

    def __init__(self, inference: str, management: str) -> None:
        self._clients = {"inference": _client(inference), "management": _client(management)}

    async def ask(
        self, kind: Literal["inference", "management"], method: str, path: str, **options: Any
    ) -> httpx.Response:
        """Return the answer to a call, whatever its status.

        Raises:
            RuntimeDown: The server does not answer; `NotSent` when it took no connection.
            InvalidRequest: The request has headers that HTTP cannot carry.
            ModelError: The answer has.
            httpx.TimeoutException: It did not answer in time.
        """
        client = self._clients[kind]
        try:
            return await client.request(method, path, **options)
        except httpx.TimeoutException:
            raise
        except httpx.TransportError as exc:
            if isinstance(exc, httpx.ProtocolError) and any(text in str(exc).lower() for text in _BAD_HTTP):
                ours = isinstance(exc, httpx.LocalProtocolError)
                error = InvalidRequest if ours else ModelError
                raise error(f"HTTP cannot carry the {'request' if ours else 'answer'}: {clip(str(exc), 200)}") from exc
            kind_of_error = NotSent if isinstance(exc, httpx.ConnectError) else RuntimeDown
            raise kind_of_error(f"Multi Model Server does not answer: {exc}") from exc
        except RuntimeError as exc:
            if client.is_closed:  # it says so in no kind of its own
                raise RuntimeDown("Multi Model Server went down as the call was made") from exc
            raise

    async def aclose(self) -> None:
        """Close everything; calls under way are cut off."""
        for client in self._clients.values():
            await client.aclose()


def _client(url: str) -> httpx.AsyncClient:
    # No limit to connections: the server queues calls, and how many there are is the scheduler's matter.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    # Reading all certificates that the machine trusts holds the event loop for 20 ms.
    verify = url.startswith("https:")
    return httpx.AsyncClient(base_url=url, timeout=MANAGEMENT_TIMEOUT_S, trust_env=False, verify=verify, limits=limits)
