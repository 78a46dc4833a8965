"""Asks sidecars for predictions.

A request body that is in memory goes out in one write. A larger one is sent with `Expect: 100-continue` (RFC 9110
§10.1.1): a sidecar that cannot take the request says so before the first byte of the body, so that it can still
go to another pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from marway.wire.headers import REQUEST_TIMEOUT_MS, Outcome
from marway_gateway.http.body import RequestBody
from marway_gateway.placement import Pod
from marway_gateway.placement.pod import VersionKey
from marway_gateway.transport.base import Reply, read_within, seconds_of
from marway_gateway.transport.frames import FramedRequest
from marway_gateway.transport.pool import ConnectionPool
from marway_gateway.transport.response import Response, Sent, Waiter
from marway_gateway.transport.slow_upload import SlowUpload
from marway_http.frames import HEAD_BYTES_MAX, REQUEST_BYTES_MAX

__all__ = ["Upstream", "answered", "reply_of"]

_PROBLEM_BYTES_MAX: Final = 64 * 1024
_WRITE_ONCE_BYTES: Final = 1024 * 1024


class Upstream:
    """Persistent connections to all sidecars.

    Args:
        connect_timeout_s: Time to open a connection.
        buffered_bytes: The largest answer that is read before it is passed on.
    """

    def __init__(self, *, connect_timeout_s: float, buffered_bytes: int) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._buffered_bytes = buffered_bytes
        self._pools: dict[str, ConnectionPool] = {}

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
        pool = self._pools.get(pod.url) or self._open(pod.url)
        whole = body.whole
        streams = whole is None or len(whole) > _WRITE_ONCE_BYTES
        head = _http_head(_lines(pool, name, version, headers, body, timeout_s), streams=streams)
        key = (name, version)
        pod.begin(key)
        try:
            connection = pool.take() or await pool.connect()
            if streams:
                with SlowUpload(body, aside=lambda: pod.end(key), back=lambda: pod.begin(key)):
                    response = await connection.ask_streaming(head, body.stream(), chunked=body.content_length is None)
            else:
                assert whole is not None
                response = await connection.ask(head, whole)
            return await _reply(response, pod, key)
        except BaseException:
            pod.end(key)
            raise

    def send(
        self,
        pod: Pod,
        name: str,
        version: str,
        *,
        headers: Mapping[str, str],
        body: RequestBody,
        timeout_s: float,
        waiter: Waiter,
    ) -> Sent | None:
        """Send what `predict` sends, if that needs no waiting, and return where; None when it does.

        Args:
            pod: Whom.
            name: The model's name.
            version: Its version.
            headers: To send along.
            body: To send; it was opened.
            timeout_s: What is left of the caller's deadline.
            waiter: Given the response or the failure, in the midst of the connection's work. It takes a whole response
                by `reply_of`, or waits on with `resume`.
        """
        pool, whole = self._pools.get(pod.url), body.whole
        if pool is None or whole is None or len(whole) > _WRITE_ONCE_BYTES:
            return None
        lines = _lines(pool, name, version, headers, body, timeout_s)
        # What is too large for a frame would end the connection for all the others on it.
        framed = pool.framed() if len(whole) <= REQUEST_BYTES_MAX and len(lines) <= HEAD_BYTES_MAX else None
        if framed is not None:
            pod.begin((name, version))
            return framed.send(lines, whole, waiter)
        connection = pool.take()
        if connection is not None:
            pod.begin((name, version))
            return connection.send(_http_head(lines), whole, waiter)
        return None

    async def resume(self, sent: Sent, waiter: asyncio.Future[Response], pod: Pod, name: str, version: str) -> Reply:
        """Wait for the reply to what `send` has sent, and raise, as `predict` does."""
        try:
            response = await sent.answer(waiter)
            if isinstance(sent, FramedRequest) and sent.elsewhere:
                pool = self._pools.get(pod.url) or self._open(pod.url)
                connection = pool.take() or await pool.connect()
                response = await connection.ask(_http_head(sent.head), sent.body)
            return await _reply(response, pod, (name, version))
        except BaseException:
            pod.end((name, version))
            raise

    async def aclose(self) -> None:
        """Close all connections that no request is on."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _open(self, url: str) -> ConnectionPool:
        pool = self._pools[url] = ConnectionPool(
            url, connect_timeout_s=self._connect_timeout_s, buffered_bytes=self._buffered_bytes
        )
        return pool


def _lines(
    pool: ConnectionPool, name: str, version: str, headers: Mapping[str, str], body: RequestBody, timeout_s: float
) -> bytes:
    """Return a request's path and headers, a line each with its end."""
    # Names and versions have only characters that need no quoting.
    lines = [f"{pool.path}/predict/{name}/{version}\r\nhost: {pool.authority}"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    lines.append(f"{REQUEST_TIMEOUT_MS}: {max(1, int(timeout_s * 1000))}")
    length = body.content_length
    lines.append("transfer-encoding: chunked\r\n" if length is None else f"content-length: {length}\r\n")
    head = "\r\n".join(lines).encode("latin-1")
    # What a header may hold is checked where it comes in; here, that none can smuggle in a second request.
    if head.count(b"\n") != len(lines) + 1:
        raise ValueError("a header has a line break in it")
    return head


def _http_head(lines: bytes, *, streams: bool = False) -> bytes:
    """Return a request's head for HTTP from its path and headers."""
    path, end, others = lines.partition(b"\r\n")
    return b"".join(
        (b"POST ", path, b" HTTP/1.1", end, others, b"expect: 100-continue\r\n\r\n" if streams else b"\r\n")
    )


async def _reply(response: Response, pod: Pod, key: VersionKey) -> Reply:
    """Return a response as a reply; what is no model's answer is read, as far as a problem may reach."""
    if response.data is None and response.said.outcome != Outcome.ANSWERED:
        pieces = (piece async for piece, _ in response.parts())
        response.data = await read_within(pieces, _PROBLEM_BYTES_MAX, response.close)
    return reply_of(response, pod, key)


def answered(response: Response) -> bool:
    """Return whether a response is a model's answer and whole."""
    return response.data is not None and response.said.outcome == Outcome.ANSWERED


def reply_of(response: Response, pod: Pod, key: VersionKey) -> Reply:
    """Return a response as a reply that counts as in flight as long as it streams."""
    outcome, retry_after, _, passed, lines = response.said
    reply = Reply(
        outcome,
        response.status,
        passed,
        seconds_of(retry_after),
        response.data,
        response.content_length,
        response,
        pod,
        key,
        lines,
    )
    if reply.data is not None:
        reply.release()  # the pod is done; how fast the client reads is no business of it
    return reply
