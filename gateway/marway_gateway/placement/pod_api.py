"""What a gateway asks sidecars beside predictions: how they are, to load a version, to drain.

The one seam where aiohttp's exceptions end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
from pydantic import ValidationError
from yarl import URL

from marway.errors import clip
from marway.wire.headers import REQUEST_TIMEOUT_MS, RETRY_AFTER
from marway.wire.pods import WATCH_HEARTBEAT_S, PodEvent, PodStatus
from marway.wire.problems import parse_problem
from marway_gateway.placement import Pod
from marway_gateway.transport.base import AttemptFailed, PodLost, PodUnreachable, read_within
from marway_gateway.transport.response_headers import seconds_of

__all__ = ["PodApi"]

_STATUS_BYTES_MAX: Final = 16 * 1024 * 1024
_SILENCE_S: Final = 5 * WATCH_HEARTBEAT_S
"""A watch that said nothing for so long is dead, whatever its connection looks like."""
_IDLE_S: Final = 15.0
"""How long an idle connection is kept. Less than any sidecar keeps it, so that none is used as it is being closed."""


class PodApi:
    """Asks sidecars for all that is no prediction.

    Args:
        connect_timeout_s: Time to open a connection.
    """

    def __init__(self, *, connect_timeout_s: float) -> None:
        self._session = aiohttp.ClientSession(
            # Limits on requests belong to placement; a limit here would be a queue that nobody sees.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
        )

    async def status(self, pod: Pod, *, timeout_s: float) -> PodStatus:
        """Ask a pod what it says of itself.

        Raises:
            AttemptFailed: It did not answer in time, or not with a status.
        """
        late = f"did not answer a health check within {timeout_s:g} s"
        response, data = await self._answer("GET", f"{pod.url}/status", timeout_s=timeout_s, late=late)
        try:
            if response.status != 200:
                raise PodLost(f"answered a health check with status {response.status}", reason="bad_answer")
            return PodStatus.model_validate_json(data)
        except ValidationError as exc:
            raise PodLost("answered a health check with something else than a status", reason="bad_answer") from exc

    async def ask(self, pod: Pod, method: str, path: str, *, timeout_s: float) -> tuple[int, bytes, float | None]:
        """Ask a sidecar for something else than a prediction; return status, body and its Retry-After in seconds.

        Args:
            pod: Whom.
            method: HTTP method.
            path: Path and query, quoted.
            timeout_s: How long it may take; the pod is told.

        Raises:
            AttemptFailed: It did not answer, or not in time.
        """
        headers = {REQUEST_TIMEOUT_MS: str(max(1, int(timeout_s * 1000)))}
        late = f"did not answer within {timeout_s:.3g} s"
        response, data = await self._answer(method, f"{pod.url}{path}", timeout_s=timeout_s, late=late, headers=headers)
        return response.status, data, seconds_of(response.headers.get(RETRY_AFTER))

    async def load(self, pod: Pod, name: str, version: str) -> None:
        """Have a pod load a version, however long that takes there.

        Raises:
            AttemptFailed: It gave no answer.
            MarwayError: It did not load it.
        """
        url = URL(f"{pod.url}/models/{name}/{version}/load", encoded=True)
        try:
            async with self._session.post(url, allow_redirects=False) as response:
                data = await read_within(response.content.iter_any(), _STATUS_BYTES_MAX, response.close)
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc) from exc
        if response.status != 200:
            raise parse_problem(data, status=response.status)

    async def watch(self, pod: Pod) -> AsyncIterator[PodEvent]:
        """Yield what a pod says of itself as it changes, until it ends the watch.

        Raises:
            AttemptFailed: The watch could not be opened, broke, fell silent, or held something else than events.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._session.timeout.sock_connect, sock_read=_SILENCE_S
        )
        try:
            async with self._session.get(
                URL(f"{pod.url}/watch", encoded=True),
                allow_redirects=False,
                timeout=timeout,
                read_bufsize=_STATUS_BYTES_MAX,
            ) as response:
                if response.status != 200:
                    raise PodLost(f"answered a watch with status {response.status}", reason="bad_answer")
                while line := await response.content.readline():
                    yield PodEvent.model_validate_json(line)
        except (ValueError, ValidationError) as exc:  # ValueError: a line beyond the buffer
            raise PodLost("answered a watch with something else than events", reason="bad_answer") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc) from exc

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _answer(
        self, method: str, url: str, *, timeout_s: float, late: str, headers: Mapping[str, str] | None = None
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Return a response and its body; ``late`` says that there was none in time."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(
                    method, URL(url, encoded=True), headers=headers, allow_redirects=False
                ) as response,
            ):
                return response, await read_within(response.content.iter_any(), _STATUS_BYTES_MAX, response.close)
        except aiohttp.ClientError as exc:
            raise _translated(exc) from exc
        except TimeoutError as exc:
            raise PodLost(late, reason="timeout") from exc
        except OSError as exc:
            raise _translated(exc) from exc


def _translated(exc: aiohttp.ClientError | OSError) -> AttemptFailed:
    """Return what an exception of the client says of the pod."""
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return PodUnreachable("did not take a connection in time", reason="connect_timeout")
    if isinstance(exc, aiohttp.ClientConnectorError):
        if isinstance(exc.os_error, ConnectionRefusedError):
            return PodUnreachable("refused the connection", reason="refused")
        return PodUnreachable(f"cannot be reached ({clip(str(exc.os_error), 200)})", reason="unreachable")
    if isinstance(exc, aiohttp.ClientResponseError):
        return PodLost("answered with something else than HTTP", reason="bad_answer")
    return PodLost("closed the connection before it had answered", reason="connection_lost")
