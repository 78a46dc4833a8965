"""The connections to one sidecar."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import Final
from urllib.parse import urlsplit

from marway.errors import clip
from marway_gateway.reply import PodUnreachable
from marway_gateway.upstream.connection import Connection

__all__ = ["ConnectionPool"]

_IDLE_S: Final = 15.0
"""How long an idle connection is kept. Less than any sidecar keeps it, so that none is used as it is being closed."""


class ConnectionPool:
    """Keeps the connections that are free, the one used last on top, and opens more as they are wanted.

    How many there are is not limited here: limits on requests belong to placement, where a queue is seen.

    Args:
        url: The sidecar's base URL.
        connect_timeout_s: Time to open a connection.
        buffered_bytes: The largest body that a connection reads whole.

    Attributes:
        authority: Host and port, as the `Host` header has them.
        path: The base URL's path, without a slash at its end.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, buffered_bytes: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.authority = parts.netloc.rpartition("@")[2]
        self.path = parts.path.rstrip("/")
        self._host = parts.hostname
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._connect_timeout_s = connect_timeout_s
        self._buffered_bytes = buffered_bytes
        self._loop = asyncio.get_running_loop()
        self._free: deque[Connection] = deque()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None

    def take(self) -> Connection | None:
        """Return a connection that is free, or None."""
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return connection
        return None

    async def connect(self) -> Connection:
        """Return a new connection.

        Raises:
            PodUnreachable: None came about.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(buffered_bytes=self._buffered_bytes, on_free=self._keep),
                    self._host,
                    self._port,
                    ssl=self._ssl,
                )
        except TimeoutError as exc:
            raise PodUnreachable("did not take a connection in time", reason="connect_timeout") from exc
        except ConnectionRefusedError as exc:
            raise PodUnreachable("refused the connection", reason="refused") from exc
        except (OSError, ssl.SSLError, socket.gaierror) as exc:
            raise PodUnreachable(f"cannot be reached ({clip(str(exc), 200)})", reason="unreachable") from exc
        return connection

    def close(self) -> None:
        """Close what is free, and each other connection once its request has ended."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._free:
            self._free.pop().close()

    def _keep(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        self._free.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(_IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        until = self._loop.time() - _IDLE_S
        while self._free and (self._free[0].idle_since <= until or not self._free[0].open):
            self._free.popleft().close()
        if self._free:
            self._sweep = self._loop.call_at(self._free[0].idle_since + _IDLE_S, self._close_idle)
