"""The connections to one server: the one seam where aiohttp's exceptions end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from marway.deadline import Deadline
from marway.errors import MarwayError, ModelError, RuntimeDown
from marway_http.client_session import client_session
from marway_sidecar.backends.http_server.errors import error_of_failure
from marway_sidecar.backends.http_server.requests import Body

__all__ = ["Connection", "Reply"]

_FAILURES: Final = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""How aiohttp says that a request failed; a RuntimeError that its session is closed."""
_NO_HEADERS: Final[Mapping[str, str]] = {}
_SMALL_BYTES: Final = 1024 * 1024
"""Most that is read of an answer which is not a model's."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        """Whether its status is 2xx."""
        return 200 <= self.status < 300


class Connection:
    """Connections to one server, kept while they are in use and a moment beyond.

    Args:
        headers: Of each request, over its own.
        connect_timeout_s: Time to open one.
        idle_s: How long an idle one is kept, seconds.
    """

    def __init__(self, *, headers: Mapping[str, str], connect_timeout_s: float, idle_s: float) -> None:
        self._headers = headers
        self._session = client_session(connect_timeout_s=connect_timeout_s, idle_s=idle_s)

    async def aclose(self) -> None:
        """Close all connections; requests under way are cut off."""
        await self._session.close()

    @asynccontextmanager
    async def answer(
        self, method: str, url: URL, *, body: Body | None, headers: Mapping[str, str] = _NO_HEADERS, deadline: Deadline
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give the answer to a request, of which its head has come.

        Whoever leaves the block before the end of the answer, or is cancelled, closes the connection: so the server
        hears that nobody waits.

        Raises:
            MarwayError: There is none in time, as `error_of_failure` says.
        """
        sent = dict(headers)
        if body is not None:
            if body.content_type:
                sent["content-type"] = body.content_type
            sent["content-length"] = str(body.size)
        # A header that is set for all is sent once, whatever a caller called it.
        own = {name.lower() for name in self._headers}
        sent = {name: value for name, value in sent.items() if name.lower() not in own} | dict(self._headers)
        try:
            async with asyncio.timeout(deadline.left_s()):
                response = await self._session.request(
                    method, url, data=body.sent() if body is not None else None, headers=sent, allow_redirects=False
                )
        except _FAILURES as exc:
            raise self._error(exc, url) from exc
        try:
            yield response
        finally:
            response.close()  # one that has come whole has given its connection back

    async def pieces(self, response: aiohttp.ClientResponse, deadline: Deadline) -> AsyncIterator[bytes]:
        """Yield an answer's body as it comes, in the pieces in which the server sent it where it sends chunks.

        Raises:
            MarwayError: It ended early, or the deadline passed.
        """
        while True:
            try:
                async with asyncio.timeout(deadline.left_s()):
                    data, chunk_ended = await response.content.readchunk()
            except _FAILURES as exc:
                raise self._error(exc, response.url) from exc
            if data:
                yield data
            elif not chunk_ended:
                return

    async def whole(self, response: aiohttp.ClientResponse, deadline: Deadline, *, limit: int) -> bytes:
        """Return an answer's whole body.

        Raises:
            ModelError: It has more than ``limit`` bytes.
            MarwayError: It ended early, or the deadline passed.
        """
        pieces: list[bytes] = []
        size = response.content_length or 0
        if size <= limit:
            size = 0
            async for piece in self.pieces(response, deadline):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    break
        if size > limit:
            raise ModelError(f"the answer has more than {limit} bytes, which are taken whole (http_max_answer_bytes)")
        return b"".join(pieces)

    async def ask(self, method: str, url: URL, deadline: Deadline, *, body: Body | None = None) -> Reply:
        """Return the whole answer to a request that is no prediction.

        Raises:
            MarwayError: There is none in time.
        """
        async with self.answer(method, url, body=body, deadline=deadline) as response:
            data = await self.whole(response, deadline, limit=_SMALL_BYTES)
            return Reply(response.status, response.headers, data)

    async def probe(self, url: URL, *, timeout_s: float) -> Reply:
        """Return the answer to a look whether the server is well.

        Raises:
            RuntimeDown: There is none within ``timeout_s``.
        """
        try:
            return await self.ask("GET", url, Deadline.after(timeout_s))
        except RuntimeDown:
            raise
        except MarwayError as exc:
            raise RuntimeDown(f"the model server does not answer at {url}: {exc.message}") from exc

    async def reach(self, url: URL, *, timeout_s: float) -> None:
        """Return once a connection could be opened, and close it.

        Raises:
            RuntimeDown: None could within ``timeout_s``.
        """
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(url.host, url.port)
                writer.close()
        except OSError as exc:
            raise RuntimeDown(f"the model server at {_where(url)} takes no connection: {exc}") from exc

    def _error(self, exc: Exception, url: URL) -> MarwayError:
        if self._session.closed:
            return RuntimeDown(f"the model server at {_where(url)} was let go of during the call")
        return error_of_failure(exc, _where(url))


def _where(url: URL) -> str:
    return f"{url.host}:{url.port}"
