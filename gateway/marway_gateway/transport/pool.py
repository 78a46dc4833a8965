"""The connections to one sidecar: how they are opened and kept.

`Connection` has two implementations, frames and HTTP, and one contract suite (`tests/gateway/transport/contract.py`).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from marway.errors import clip
from marway_gateway.http.body import RequestBody
from marway_gateway.transport.base import PodUnreachable
from marway_gateway.transport.frames import FramesClientConnection
from marway_gateway.transport.http import HttpClientConnection
from marway_gateway.transport.reply import Reply
from marway_http.eager import in_task
from marway_http.frames import PATH, UPGRADE

__all__ = ["Connection", "ConnectionPool"]

_IDLE_S: Final = 15.0
"""How long an idle connection is kept. Less than any sidecar keeps it, so that none is used as it is being closed."""
_NO_FRAMES_S: Final = 10.0
"""After so long a sidecar that did not change to frames is asked again: it may be another one by then."""
_HANDSHAKE_BYTES_MAX: Final = 16 * 1024

_log = logging.getLogger(__name__)
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


class Connection(Protocol):
    """One connection to a sidecar.

    A request ends once: with its answer, with a failure, or when its caller is cancelled, whichever comes first; then
    the connection forgets it. Cancelling tells the sidecar that nobody waits.
    """

    @property
    def ready(self) -> bool:
        """Whether `request` may be called now."""

    async def request(self, head: bytes, body: RequestBody) -> Reply:
        """Send a request; return the reply as soon as its body is whole, or streams. Sends before it first waits.

        Args:
            head: The path, and headers with those that say the body's length: lines, each with its end.
            body: To send; it was opened.

        Raises:
            PodUnreachable: Nothing was sent: the connection had ended.
            PodLost: There is no reply; the request may have been running.
            Declined: The request has to be sent over HTTP.
            Exception: Whatever reading ``body`` raises.
        """

    def close(self) -> None:
        """Take no more requests, and end when those under way have ended."""


class ConnectionPool:
    """One connection with frames, and connections with HTTP that are opened as they are wanted.

    How many there are is not limited here: limits on requests belong to placement, where a queue is seen.

    Args:
        url: The sidecar's base URL.
        connect_timeout_s: Time to open a connection.
        buffered_bytes: The largest body that a connection reads whole.

    Attributes:
        authority: Host and port, as the `Host` header has them.
        path: The base URL's path, without a slash at its end.
        frames: The connection with frames, if there is one.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, buffered_bytes: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.authority = parts.netloc.rpartition("@")[2]
        self.path = parts.path.rstrip("/")
        self.frames: FramesClientConnection | None = None
        self._host = parts.hostname
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._connect_timeout_s = connect_timeout_s
        self._buffered_bytes = buffered_bytes
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._free: dict[HttpClientConnection, asyncio.TimerHandle] = {}
        self._opening: asyncio.Task[FramesClientConnection | PodUnreachable | None] | None = None
        self._http_only = False
        self._try_frames_at = 0.0

    async def http(self) -> HttpClientConnection:
        """Return a connection that is ready, the one that was used last of those that are free, or a new one.

        Raises:
            PodUnreachable: There is no connection to the pod.
        """
        connection = self._take()
        if connection is None:
            await in_task()
            connection = await self._connected(
                lambda: HttpClientConnection(buffered_bytes=self._buffered_bytes, on_free=self._keep)
            )
        return connection

    def close(self) -> None:
        """Close what is free, and each other connection once its requests have ended."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self.frames is not None:
            self.frames.close()
        while (connection := self._take()) is not None:
            connection.close()

    # -- frames --------------------------------------------------------------------------------------------

    async def frames_opened(self) -> FramesClientConnection | None:
        """Return the connection for frames once it is open; None where a request has to go over HTTP.

        All who want it wait for one opening. A sidecar that did not change to frames is asked again from time to time,
        and nobody waits for that.

        Raises:
            PodUnreachable: There is no connection to the pod.
        """
        frames, opening = self.frames, self._opening
        if opening is None:
            if self._closed or (frames is not None and not frames.over) or self._loop.time() < self._try_frames_at:
                return None
            opening = self._opening = self._loop.create_task(self._open_frames(), name="open-frames")
        if self._http_only:
            return None
        await asyncio.wait((opening,))
        opened = None if opening.cancelled() else opening.result()
        if isinstance(opened, PodUnreachable):
            raise PodUnreachable(opened.why, reason=opened.reason)
        return opened if opened is not None and opened.ready else None

    async def _open_frames(self) -> FramesClientConnection | PodUnreachable | None:
        frames = FramesClientConnection(buffered_bytes=self._buffered_bytes)
        handshake, switched = None, False
        try:
            handshake = await self._connected(lambda: _Handshake(self.authority, self.path, frames))
            async with asyncio.timeout(self._connect_timeout_s):
                switched = await handshake.switched
        except PodUnreachable as exc:
            return exc
        except TimeoutError:
            pass
        finally:
            self._opening = None
            if handshake is not None and not switched:
                handshake.abort()
        if switched:
            self.frames, self._http_only = frames, False
            return frames
        if not self._http_only:
            _log.info("%s does not change to frames: predictions go there over HTTP, which costs more", self.authority)
        self._http_only = True
        self._try_frames_at = self._loop.time() + _NO_FRAMES_S
        return None

    # -- HTTP ----------------------------------------------------------------------------------------------

    def _take(self) -> HttpClientConnection | None:
        """Return the connection that was used last of those that are free, or None."""
        while self._free:
            connection, timer = self._free.popitem()
            timer.cancel()
            if connection.ready:
                return connection
        return None

    def _keep(self, connection: HttpClientConnection) -> None:
        if self._closed:
            connection.close()
        else:
            self._free[connection] = self._loop.call_later(_IDLE_S, self._drop, connection)

    def _drop(self, connection: HttpClientConnection) -> None:
        del self._free[connection]
        connection.close()

    async def _connected(self, protocol: Callable[[], _Protocol]) -> _Protocol:
        """Return a new connection.

        Raises:
            PodUnreachable: None came about.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(protocol, self._host, self._port, ssl=self._ssl)
        except TimeoutError as exc:
            raise PodUnreachable("did not take a connection in time", reason="connect_timeout") from exc
        except ConnectionRefusedError as exc:
            raise PodUnreachable("refused the connection", reason="refused") from exc
        except OSError as exc:
            raise PodUnreachable(f"cannot be reached ({clip(str(exc), 200)})", reason="unreachable") from exc
        return connection


class _Handshake(asyncio.Protocol):
    """Asks a sidecar to change to frames, and hands the connection over to ``frames`` when it does.

    Attributes:
        switched: Whether it did, once it is known.
    """

    def __init__(self, authority: str, path: str, frames: FramesClientConnection) -> None:
        self.switched: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._request = (
            f"GET {path}{PATH} HTTP/1.1\r\nhost: {authority}\r\nconnection: upgrade\r\nupgrade: {UPGRADE}\r\n\r\n"
        ).encode("latin-1")
        self._frames = frames
        self._come = b""
        self._transport: asyncio.Transport

    def abort(self) -> None:
        """Give the connection up."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.switched.done():
            self.switched.set_result(False)

    def data_received(self, data: bytes) -> None:
        self._come += data
        response_head, end, rest = self._come.partition(b"\r\n\r\n")
        if not end and len(response_head) <= _HANDSHAKE_BYTES_MAX:
            return
        status, *headers = response_head.lower().split(b"\r\n")
        if not end or not status.startswith(b"http/1.1 101 ") or f"upgrade: {UPGRADE}".encode() not in headers:
            self._transport.abort()
        elif not self.switched.done():
            self._transport.set_protocol(self._frames)
            self._frames.connection_made(self._transport)
            self._frames.data_received(rest)
            self.switched.set_result(True)
