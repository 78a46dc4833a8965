"""The connections to one sidecar."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from marway.errors import clip
from marway_gateway.transport.base import PodUnreachable
from marway_gateway.transport.frames import FramedConnection
from marway_gateway.transport.http import Connection

__all__ = ["ConnectionPool"]

_IDLE_S: Final = 15.0
"""How long an idle connection is kept. Less than any sidecar keeps it, so that none is used as it is being closed."""
_NO_FRAMES_S: Final = 10.0
"""After so long a sidecar that did not change to frames is asked again: it may be another one by then."""

_log = logging.getLogger(__name__)
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


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
        self._framed: FramedConnection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._try_frames_at = 0.0
        self._said_so = False
        self._sweep: asyncio.TimerHandle | None = None

    def take(self) -> Connection | None:
        """Return a connection that is free, or None."""
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return connection
        return None

    def framed(self) -> FramedConnection | None:
        """Return the connection for requests over frames, or None when it cannot take one now.

        Where there is none, one is opened beside: a sidecar that knows no frames costs no request any time.
        """
        framed = self._framed
        if framed is not None and framed.ready:
            return framed
        if (framed is None or framed.over) and self._opening is None and self._loop.time() >= self._try_frames_at:
            self._opening = self._loop.create_task(self._open_framed(), name="open-frames")
        return None

    async def _open_framed(self) -> None:
        framed = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                framed = await self._connected(
                    lambda: FramedConnection(self.authority, self.path, buffered_bytes=self._buffered_bytes)
                )
                opened = await framed.opened
        except (TimeoutError, PodUnreachable):
            opened = False
        finally:
            self._opening = None
            if framed is not None and not framed.ready:
                framed.leave()
        if opened:
            self._framed = framed
            return
        self._try_frames_at = self._loop.time() + _NO_FRAMES_S
        if framed is not None and not self._said_so:
            self._said_so = True
            _log.info("%s does not change to frames: predictions go there over HTTP, which costs more", self.authority)

    async def connect(self) -> Connection:
        """Return a new connection.

        Raises:
            PodUnreachable: None came about.
        """
        return await self._connected(lambda: Connection(buffered_bytes=self._buffered_bytes, on_free=self._keep))

    async def _connected(self, protocol: Callable[[], _Protocol]) -> _Protocol:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(protocol, self._host, self._port, ssl=self._ssl)
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
        if self._opening is not None:
            self._opening.cancel()
        if self._framed is not None:
            self._framed.leave()
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
