"""The HTTP client to sidecars.

A request body that is in memory goes out in one write. A larger one is sent with `Expect: 100-continue` (RFC 9110
§10.1.1): a sidecar that cannot take the request says so before the first byte of the body, so that it can still
go to another pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import aiohttp
from pydantic import ValidationError
from yarl import URL

from marway.wire.headers import HOP_BY_HOP, OUTCOME, REQUEST_TIMEOUT_MS, RETRY_AFTER, Outcome
from marway.wire.pods import WATCH_HEARTBEAT_S, PodEvent, PodStatus
from marway.wire.problems import parse_problem
from marway_gateway.body import RequestBody
from marway_gateway.placement import Pod
from marway_gateway.reply import Headers, PodLost, Reply, translated

__all__ = ["Upstream"]

_PROBLEM_BYTES_MAX: Final = 64 * 1024
_STATUS_BYTES_MAX: Final = 16 * 1024 * 1024
_SILENCE_S: Final = 5 * WATCH_HEARTBEAT_S
"""A watch that said nothing for so long is dead, whatever its connection looks like."""
_WRITE_ONCE_BYTES: Final = 1024 * 1024
_IDLE_S: Final = 15.0
"""How long an idle connection is kept. Less than any sidecar keeps it, so that none is used as it is being closed."""

_NOT_PASSED: Final = frozenset({name.encode() for name in HOP_BY_HOP} | {b"content-length", b"server", b"date"})


class Upstream:
    """Persistent connections to all sidecars.

    Args:
        connect_timeout_s: Time to open a connection.
        buffered_bytes: The largest answer that is read before it is passed on.
    """

    def __init__(self, *, connect_timeout_s: float, buffered_bytes: int) -> None:
        self._buffered_bytes = buffered_bytes
        self._session = aiohttp.ClientSession(
            # Limits on requests belong to placement; a limit here would be a queue that nobody sees.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
        )

    async def predict(
        self, pod: Pod, name: str, version: str, *, headers: Mapping[str, str], body: RequestBody, timeout_s: float
    ) -> Reply:
        """Ask a pod for a prediction.

        Args:
            pod: Whom.
            name: The model's name.
            version: Its version.
            headers: To send along.
            body: To send; it was opened.
            timeout_s: What is left of the caller's deadline; the pod is told, the caller of this enforces it.

        Raises:
            PodUnreachable: Nothing was sent.
            PodLost: Something may have been.
            BodyTooLarge, ClientGone: The body ended that way while it was being sent.
        """
        sent = {**headers, REQUEST_TIMEOUT_MS: str(max(1, int(timeout_s * 1000)))}
        data: bytes | AsyncIterator[bytes] | None = body.whole
        streams = body.whole is None or len(body.whole) > _WRITE_ONCE_BYTES
        if streams:
            data = body.stream()
            if body.content_length is not None:
                sent["content-length"] = str(body.content_length)
        # Names and versions have only characters that need no quoting.
        url = URL(f"{pod.url}/predict/{name}/{version}", encoded=True)
        release = _counted(pod, (name, version))
        try:
            response = await self._session.post(url, data=data, headers=sent, expect100=streams, allow_redirects=False)
            try:
                reply = await self._reply(response, release)
            except BaseException:
                response.close()
                raise
        except BaseException as exc:
            release()
            if not isinstance(exc, aiohttp.ClientError | OSError):
                raise
            if body.error is not None:
                raise body.error from None
            raise translated(exc) from exc
        if reply.data is not None:
            release()  # the pod is done; how fast the client reads is no business of it
        return reply

    async def status(self, pod: Pod, *, timeout_s: float) -> PodStatus:
        """Ask a pod what it says of itself.

        Raises:
            AttemptFailed: It did not answer in time, or not with a status.
        """
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.get(URL(f"{pod.url}/status", encoded=True), allow_redirects=False) as response,
            ):
                data = await _read(response, _STATUS_BYTES_MAX)
        except aiohttp.ClientError as exc:
            raise translated(exc) from exc
        except TimeoutError as exc:
            raise PodLost(f"did not answer a health check within {timeout_s:g} s", reason="timeout") from exc
        except OSError as exc:
            raise translated(exc) from exc
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
        url = URL(f"{pod.url}{path}", encoded=True)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(method, url, headers=headers, allow_redirects=False) as response,
            ):
                data = await _read(response, _STATUS_BYTES_MAX)
                return response.status, data, _seconds(response.headers.get(RETRY_AFTER))
        except aiohttp.ClientError as exc:
            raise translated(exc) from exc
        except TimeoutError as exc:
            raise PodLost(f"did not answer within {timeout_s:.3g} s", reason="timeout") from exc
        except OSError as exc:
            raise translated(exc) from exc

    async def load(self, pod: Pod, name: str, version: str) -> None:
        """Have a pod load a version, however long that takes there.

        Raises:
            AttemptFailed: It gave no answer.
            MarwayError: It did not load it.
        """
        url = URL(f"{pod.url}/models/{name}/{version}/load", encoded=True)
        try:
            async with self._session.post(url, allow_redirects=False) as response:
                data = await _read(response, _STATUS_BYTES_MAX)
        except (aiohttp.ClientError, OSError) as exc:
            raise translated(exc) from exc
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
            raise translated(exc) from exc

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _reply(self, response: aiohttp.ClientResponse, release: Callable[[], None]) -> Reply:
        outcome = response.headers.get(OUTCOME)
        length = response.content_length
        data: bytes | None = None
        if outcome != Outcome.ANSWERED:
            data = await _read(response, _PROBLEM_BYTES_MAX)
        elif length is not None and length <= self._buffered_bytes:
            # Not response.read(): that also waits until the request's body was sent, which may never happen now.
            data = await response.content.read()
        return Reply(
            outcome,
            response.status,
            _passed_on(response),
            _seconds(response.headers.get(RETRY_AFTER)),
            data,
            length,
            response,
            release,
        )


def _counted(pod: Pod, key: tuple[str, str]) -> Callable[[], None]:
    """Count a request as in flight, and return what counts it as ended, once however often it is called."""
    pod.begin(key)
    running = True

    def release() -> None:
        nonlocal running
        if running:
            running = False
            pod.end(key)

    return release


def _passed_on(response: aiohttp.ClientResponse) -> Headers:
    named = {name.strip().lower().encode() for name in response.headers.get("connection", "").split(",")}
    return [
        (name, value)
        for name, value in ((name.lower(), value) for name, value in response.raw_headers)
        if name not in _NOT_PASSED and name not in named and not name.startswith(b"x-marway-")
    ]


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body, but never more than ``limit`` bytes of it; the rest is thrown away with the connection."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size >= limit:
            response.close()
            break
    return b"".join(pieces)[:limit]


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None  # an HTTP date; no sidecar sends one
    return value if value is not None and 0 <= value < 86_400 else None
