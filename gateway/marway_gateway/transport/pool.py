"""The connections to one sidecar: small requests go over frames, others over HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from marway.errors import clip
from marway_gateway.http.body import RequestBody
from marway_gateway.transport.base import Declined, PodUnreachable, Reply
from marway_gateway.transport.frames import FramesClientConnection
from marway_gateway.transport.http import HttpClientConnection
from marway_http.eager import in_task
from marway_http.frames import HEAD_BYTES_MAX, REQUEST_BYTES_MAX

__all__ = ["ConnectionPool"]

_IDLE_S: Final = 15.0
"""How long an idle connection is kept. Less than any sidecar keeps it, so that none is used as it is being closed."""
_NO_FRAMES_S: Final = 10.0
"""After so long a sidecar that did not change to frames is asked again: it may be another one by then."""

_log = logging.getLogger(__name__)
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


class ConnectionPool:
    """Sends requests over one connection with frames, or connections with HTTP that are opened as they are wanted.

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
        self._closed = False
        self._free: dict[HttpClientConnection, asyncio.TimerHandle] = {}
        self._frames: FramesClientConnection | None = None
        self._opening: asyncio.Task[FramesClientConnection | PodUnreachable | None] | None = None
        self._http_only = False
        self._try_frames_at = 0.0

    async def request(self, head: bytes, body: RequestBody) -> Reply:
        """Do as `Connection.request` says, over whatever connection the request takes.

        Raises:
            PodUnreachable: Nothing was sent.
            PodLost: There is no reply; the request may have been running.
            Exception: Whatever reading ``body`` raises.
        """
        whole = body.whole
        # What is too large for a frame would end the connection for all the others on it.
        if whole is not None and len(whole) <= REQUEST_BYTES_MAX and len(head) <= HEAD_BYTES_MAX:
            frames = self._frames
            if frames is None or not frames.ready:
                frames = await self._frames_opened()
            if frames is not None:
                try:
                    return await frames.request(head, body)
                except Declined:
                    pass
        connection = self._take()
        if connection is None:
            await in_task()
            connection = await self._connected(
                lambda: HttpClientConnection(buffered_bytes=self._buffered_bytes, on_free=self._keep)
            )
        return await connection.request(head, body)

    def close(self) -> None:
        """Close what is free, and each other connection once its requests have ended."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._frames is not None:
            self._frames.close()
        while (connection := self._take()) is not None:
            connection.close()

    # -- frames --------------------------------------------------------------------------------------------

    async def _frames_opened(self) -> FramesClientConnection | None:
        """Return the connection for frames once it is open; None where a request has to go over HTTP.

        All who want it wait for one opening. A sidecar that did not change to frames is asked again from time to time,
        and nobody waits for that.

        Raises:
            PodUnreachable: There is no connection to the pod.
        """
        frames, opening = self._frames, self._opening
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
        frames, switched = None, False
        try:
            frames = await self._connected(
                lambda: FramesClientConnection(self.authority, self.path, buffered_bytes=self._buffered_bytes)
            )
            async with asyncio.timeout(self._connect_timeout_s):
                switched = await frames.opened
        except PodUnreachable as exc:
            return exc
        except TimeoutError:
            pass
        finally:
            self._opening = None
            if frames is not None and not switched:
                frames.close()
        if switched:
            self._frames, self._http_only = frames, False
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
        except (OSError, ssl.SSLError, socket.gaierror) as exc:
            raise PodUnreachable(f"cannot be reached ({clip(str(exc), 200)})", reason="unreachable") from exc
        return connection
