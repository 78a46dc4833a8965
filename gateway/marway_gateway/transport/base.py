"""What comes of asking a pod: a reply, or none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from marway_gateway.placement.pod import Pod, VersionKey

__all__ = [
    "AttemptFailed",
    "Headers",
    "Lines",
    "PodLost",
    "PodUnreachable",
    "Reply",
    "Stream",
    "lines_of",
    "read_within",
    "seconds_of",
]

Headers = list[tuple[bytes, bytes]]


class Lines(NamedTuple):
    """Headers as they go out, a line each with its end.

    Attributes:
        text: The lines.
        number: How many they are meant to be: with more, a header has a line break in it.
    """

    text: bytes
    number: int


def lines_of(headers: Headers) -> Lines:
    """Return headers as they go out."""
    return Lines(b"".join([b"%b: %b\r\n" % each for each in headers]), len(headers))


class AttemptFailed(Exception):
    """A pod gave no answer.

    Attributes:
        why: Words to put behind the pod's name: "refused the connection".
        reason: One word for metrics.
        counted: Whether it says something of the pod that no other failure has said: of the requests that ended with
            one connection, one counts.
    """

    def __init__(self, why: str, *, reason: str, counted: bool = True) -> None:
        super().__init__(why)
        self.why = why
        self.reason = reason
        self.counted = counted


class PodUnreachable(AttemptFailed):
    """No connection came about, so nothing of the request was sent."""


class PodLost(AttemptFailed):
    """The connection broke, or what came over it was no HTTP: the request may have been running."""


class Stream(Protocol):
    """The body of an answer that comes in pieces."""

    def parts(self) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield it as it comes, each part with whether one of the sidecar's HTTP chunks ends with it."""

    def close(self) -> None:
        """Let go of the connection; what was not read is thrown away."""


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
        stream: Where a body that streams comes from.
        pod: Where the request counts as in flight for ``key``, until `release`.
    """

    outcome: str | None
    status: int
    headers: Headers
    retry_after_s: float | None
    data: bytes | None
    content_length: int | None
    stream: Stream | None = None
    pod: Pod | None = None
    key: VersionKey = ("", "")
    known_lines: Lines | None = None

    @property
    def lines(self) -> Lines:
        """``headers`` as they go out."""
        if self.known_lines is None:
            self.known_lines = lines_of(self.headers)
        return self.known_lines

    def kept(self, headers: Headers) -> Reply:
        """Return a whole answer with these headers that holds no connection, to be given again."""
        return Reply(self.outcome, self.status, headers, self.retry_after_s, self.data, self.content_length)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield a streaming body as it comes.

        Raises:
            PodLost: It ended early.
        """
        assert self.stream is not None
        async for part, _ in self.stream.parts():
            if part:
                yield part

    async def pieces(self, *, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield a streaming body in the pieces in which the handler sent it: one HTTP chunk of the sidecar's each.

        Args:
            max_bytes: The largest piece; it is held in memory.

        Raises:
            PodLost: It ended early, or a piece was larger.
        """
        assert self.stream is not None
        held = bytearray()
        async for part, whole in self.stream.parts():
            held += part
            if len(held) > max_bytes:
                raise PodLost(f"sent a piece of more than {max_bytes} bytes", reason="bad_answer")
            if whole and held:
                yield bytes(held)
                held.clear()

    def release(self) -> None:
        """Count the request as ended on its pod; a second call does nothing."""
        pod, self.pod = self.pod, None
        if pod is not None:
            pod.end(self.key)

    def close(self) -> None:
        """Let go of the connection: free again when the answer was read to its end, else closed."""
        if self.stream is not None:
            self.stream.close()
        self.release()


async def read_within(pieces: AsyncIterator[bytes], limit: int, close: Callable[[], None]) -> bytes:
    """Read a body, but never more than ``limit`` bytes of it; the rest is thrown away with the connection."""
    read: list[bytes] = []
    size = 0
    async for piece in pieces:
        read.append(piece)
        size += len(piece)
        if size >= limit:
            close()
            break
    return b"".join(read)[:limit]


def seconds_of(retry_after: str | bytes | None) -> float | None:
    """Return a `Retry-After` in seconds; None without one, or where it is no number of them."""
    try:
        value = float(retry_after) if retry_after is not None else None
    except ValueError:
        return None  # an HTTP date; no sidecar sends one
    return value if value is not None and 0 <= value < 86_400 else None
