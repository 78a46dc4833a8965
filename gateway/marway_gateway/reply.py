"""What comes of asking a pod: a reply, or none. The one seam where aiohttp's exceptions end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import aiohttp

from marway.errors import clip

__all__ = ["AttemptFailed", "Headers", "PodLost", "PodUnreachable", "Reply", "translated"]

Headers = list[tuple[bytes, bytes]]


class AttemptFailed(Exception):
    """A pod gave no answer.

    Attributes:
        why: Words to put behind the pod's name: "refused the connection".
        reason: One word for metrics.
    """

    def __init__(self, why: str, *, reason: str) -> None:
        super().__init__(why)
        self.why = why
        self.reason = reason


class PodUnreachable(AttemptFailed):
    """No connection came about, so nothing of the request was sent."""


class PodLost(AttemptFailed):
    """The connection broke, or what came over it was no HTTP: the request may have been running."""


@dataclass(slots=True)
class Reply:
    """A sidecar's answer.

    Attributes:
        outcome: Who made it, one of `marway.wire.headers.Outcome`, or None when no sidecar did.
        status: HTTP status.
        headers: Those that may be passed on, names in lower case.
        retry_after_s: The pod's own Retry-After.
        data: The body, or None when it streams.
        content_length: Its size in bytes, where the pod said it.
    """

    outcome: str | None
    status: int
    headers: Headers
    retry_after_s: float | None
    data: bytes | None
    content_length: int | None
    _response: aiohttp.ClientResponse | None
    _release: Callable[[], None] = lambda: None

    def kept(self, headers: Headers) -> Reply:
        """Return a whole answer with these headers that holds no connection, to be given again."""
        return replace(self, headers=headers, _response=None, _release=lambda: None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield a streaming body as it comes.

        Raises:
            PodLost: It ended early.
        """
        assert self._response is not None
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as exc:
            raise translated(exc) from exc

    async def pieces(self, *, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield a streaming body in the pieces in which the handler sent it: one HTTP chunk of the sidecar's each.

        Args:
            max_bytes: The largest piece; it is held in memory.

        Raises:
            PodLost: It ended early, or a piece was larger.
        """
        assert self._response is not None
        held = bytearray()
        try:
            async for part, whole in self._response.content.iter_chunks():
                held += part
                if len(held) > max_bytes:
                    raise PodLost(f"sent a piece of more than {max_bytes} bytes", reason="bad_answer")
                if whole and held:
                    yield bytes(held)
                    held.clear()
        except (aiohttp.ClientError, OSError) as exc:
            raise translated(exc) from exc

    def close(self) -> None:
        """Let go of the connection: back to the pool when the answer was read to its end, else closed."""
        if self._response is not None:
            self._response.close()
        self._release()


def translated(exc: aiohttp.ClientError | OSError) -> AttemptFailed:
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
