"""Asks sidecars for predictions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, Protocol

from marway.deadline import Deadline
from marway.wire.headers import REQUEST_TIMEOUT_MS, STREAM, Outcome
from marway_gateway.http.body import RequestBody
from marway_gateway.transport.base import Declined, read_within
from marway_gateway.transport.pool import ConnectionPool
from marway_gateway.transport.reply import Reply
from marway_gateway.transport.slow_upload import slow_upload
from marway_http.frames import HEAD_BYTES_MAX, REQUEST_BYTES_MAX

__all__ = ["Upstream"]

_PROBLEM_BYTES_MAX: Final = 64 * 1024


class Pod(Protocol):
    """Whom to ask; it counts the requests that are under way there, by model and version."""

    @property
    def url(self) -> str:
        """The sidecar's base URL."""

    def begin(self, key: tuple[str, str], /) -> None:
        """Take in that a request begins."""

    def end(self, key: tuple[str, str], /) -> None:
        """Take in that it ended."""


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
        self, pod: Pod, name: str, version: str, *, headers: Mapping[str, str], body: RequestBody, deadline: Deadline
    ) -> Reply:
        """Ask a pod for a prediction; who is cancelled wants none any more.

        What is small is sent before this first waits, where there is a connection. The reply counts as in flight on
        its pod until its body is whole here, or else until it is closed. The body was opened. The pod is told the
        deadline; the caller of this enforces it.

        Raises:
            PodUnreachable: Nothing was sent.
            PodLost: Something may have been.
            BodyTooLarge, ClientGone: The body ended that way while it was being sent.
        """
        pool = self._pools.get(pod.url) or self._open(pod.url)
        head = _head(pool, name, version, headers, body, deadline)
        key = (name, version)
        framed = STREAM not in headers  # frames carry no answers in pieces
        pod.begin(key)
        try:
            if body.ended:
                reply = await _reply(pool, head, body, framed=framed)
            else:
                with slow_upload(body, aside=partial(pod.end, key), back=partial(pod.begin, key)):
                    reply = await _reply(pool, head, body, framed=framed)
            if reply.data is None:
                if reply.outcome == Outcome.ANSWERED:
                    reply.on_release = partial(pod.end, key)
                    return reply
                reply.data = await read_within(reply.chunks(), _PROBLEM_BYTES_MAX, reply.close)
        except BaseException:
            pod.end(key)
            raise
        pod.end(key)  # it is done; how fast the client reads is no business of it
        return reply

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


async def _reply(pool: ConnectionPool, head: bytes, body: RequestBody, *, framed: bool) -> Reply:
    """Send a request over frames if it may and is small, else over HTTP; raises as `Connection.request` does."""
    whole = body.whole
    # What is too large for a frame would end the connection for all the others on it.
    if framed and whole is not None and len(whole) <= REQUEST_BYTES_MAX and len(head) <= HEAD_BYTES_MAX:
        frames = pool.frames
        if frames is None or not frames.ready:
            frames = await pool.frames_opened()
        if frames is not None:
            try:
                return await frames.request(head, body)
            except Declined:
                pass
    connection = await pool.http()
    return await connection.request(head, body)


def _head(
    pool: ConnectionPool, name: str, version: str, headers: Mapping[str, str], body: RequestBody, deadline: Deadline
) -> bytes:
    """Return a request's path and headers, a line each with its end."""
    # Names and versions have only characters that need no quoting.
    length = body.content_length
    lines = [
        f"{pool.path}/predict/{name}/{version}\r\nhost: {pool.authority}",
        *[f"{key}: {value}" for key, value in headers.items()],
        f"{REQUEST_TIMEOUT_MS}: {max(1, int(deadline.left_s() * 1000))}",
        "transfer-encoding: chunked\r\n" if length is None else f"content-length: {length}\r\n",
    ]
    head = "\r\n".join(lines).encode("latin-1")
    # What a header may hold is checked where it comes in; here, that none can smuggle in a second request.
    if head.count(b"\n") != len(lines) + 1:
        raise ValueError("a header has a line break in it")
    return head
