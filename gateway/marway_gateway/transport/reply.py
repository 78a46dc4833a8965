"""A sidecar's answer: what its headers say to the gateway, what of them its client gets, and its body."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from marway.wire import headers as wire
from marway.wire.headers import HOP_BY_HOP, OUTCOME, RETRY_AFTER, RUN
from marway_gateway.transport.base import BodyStream, PodLost
from marway_http.channel import HeaderBlock

__all__ = ["NO_BODY", "Headers", "Reply", "parse_response_headers", "seconds_of"]

NO_BODY: Final = frozenset({204, 304})
"""Statuses whose answers have no body, whatever length they say."""
Headers = list[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_OURS: Final = (
    *(wire.REQUEST_ID, wire.REQUEST_GROUP_ID, wire.PREDICTION_ID),
    *(wire.MODEL_NAME, wire.MODEL_VERSION, wire.MODEL_ID),
)
_NOT_PASSED: Final = frozenset(name.encode() for name in (*HOP_BY_HOP, *_OURS, "content-length", "server", "date"))
"""What a gateway says itself, or what is between it and the sidecar."""
_OUTCOME: Final = OUTCOME.encode()
_LENGTH: Final = b"content-length"
_PASSED: Final = b"passed"
_OWN_PREFIX: Final = wire.OWN_PREFIX.encode()
_RETRY_AFTER: Final = RETRY_AFTER.encode()
_RUN: Final = RUN.encode()
_Parsed = tuple[str | None, float | None, HeaderBlock, int | None, bytes | None]
"""Outcome, seconds to wait, what the client gets, bytes of the body, and how the model server ran it: of several
headers with one name the last."""


def parse_response_headers(text: bytes) -> _Parsed:
    """Return what headers say of a reply: its outcome, retry_after_s, header_block, content_length, run.

    Those in front of an empty line are parsed once for the many answers that have them.

    Raises:
        ValueError: They are no lines, each with its end and a name in lower case.
    """
    shared, _, own = text.rpartition(b"\r\n\r\n")
    return _parse(own, _parse_shared(shared + b"\r\n") if shared else _NOTHING)


def _parse(text: bytes, before: _Parsed) -> _Parsed:
    """Return what headers say behind others."""
    outcome, retry_after_s, (block, number, _), length, run = before
    *lines, end = text.split(b"\r\n")
    if end:
        raise ValueError("the last line has no end")
    not_passed = _NOT_PASSED
    if b"connection: " in text:  # those that it names belong to the connection too (RFC 9110 §7.6.1)
        named = [line[12:].lower().split(b",") for line in lines if line.startswith(b"connection: ")]
        not_passed |= {name.strip() for names in named for name in names}
    for line in lines:
        name, found, value = line.partition(b": ")
        if not found:
            raise ValueError("a line is no header")
        meaning = _meaning(name)
        if meaning is _PASSED and (not_passed is _NOT_PASSED or name not in not_passed):
            block += line + b"\r\n"
            number += 1
            if name == _RETRY_AFTER:
                retry_after_s = seconds_of(value)
        elif meaning is _LENGTH:
            length = int(value)
        elif meaning is _RUN:
            run = value
        elif meaning is _OUTCOME:
            outcome = value.decode("latin-1")
    return outcome, retry_after_s, HeaderBlock(block, number), length, run


@lru_cache(maxsize=1024)
def _meaning(name: bytes) -> bytes | None:
    """Return what a header is for: `_LENGTH`, `_OUTCOME` or `_RUN`, `_PASSED` to the client, or None for nobody.

    Raises:
        ValueError: It is not in lower case: it would not be known, a second length among others.
    """
    if name != name.lower():
        raise ValueError("a header's name is not in lower case")
    if name == _LENGTH:
        return _LENGTH
    if name == _OUTCOME:
        return _OUTCOME
    if name == _RUN:
        return _RUN
    return None if name in _NOT_PASSED or name.startswith(_OWN_PREFIX) else _PASSED


_NOTHING: Final[_Parsed] = (None, None, HeaderBlock(b"", 0), None, None)


@lru_cache(maxsize=1024)
def _parse_shared(text: bytes) -> _Parsed:
    return _parse(text, _NOTHING)


def seconds_of(retry_after: str | bytes | None) -> float | None:
    """Return a `Retry-After` in seconds; None without one, or where it is no number of them."""
    try:
        value = float(retry_after) if retry_after is not None else None
    except ValueError:
        return None  # an HTTP date; no sidecar sends one
    return value if value is not None and 0 <= value < 86_400 else None


@dataclass(slots=True, eq=False)
class Reply:
    """A sidecar's answer.

    Attributes:
        status: HTTP status.
        outcome: Who made it, one of `marway.wire.headers.Outcome`, or None when no sidecar did.
        retry_after_s: The pod's own Retry-After.
        header_block: The headers that may be passed on, as they go out.
        data: The body, or None when it streams.
        content_length: Its size in bytes, where the pod said it.
        run: How the model server ran the request, as the pod said it (`ModelRun.parse` reads it).
        stream: Where a body that streams comes from.
        on_release: Called when the reply is closed, once.
    """

    status: int
    outcome: str | None
    retry_after_s: float | None
    header_block: HeaderBlock
    data: bytes | None
    content_length: int | None
    run: bytes | None = None
    stream: BodyStream | None = None
    on_release: Callable[[], None] | None = None

    @property
    def headers(self) -> Headers:
        """The headers that may be passed on, names in lower case."""
        lines = [line.partition(b": ") for line in self.header_block.text.split(b"\r\n")[:-1]]
        return [(name, value) for name, _, value in lines]

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

        Raises:
            PodLost: It ended early, or a piece, which is held in memory, was larger.
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

    def close(self) -> None:
        """Let go of the connection: free again when the answer was read to its end, else told that nobody waits."""
        if self.stream is not None:
            self.stream.close()
        released, self.on_release = self.on_release, None
        if released is not None:
            released()
