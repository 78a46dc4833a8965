"""The headers of a sidecar's answer: what they say to the gateway, and what of them its client gets."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from marway.wire import headers as wire
from marway.wire.headers import HOP_BY_HOP, OUTCOME, RETRY_AFTER
from marway_http.channel import HeaderBlock

__all__ = ["Headers", "ResponseHeaders", "parse_response_headers", "seconds_of"]

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_OURS: Final = (wire.REQUEST_ID, wire.REQUEST_GROUP_ID, wire.MODEL_NAME, wire.MODEL_VERSION, wire.MODEL_ID)
_NOT_PASSED: Final = frozenset(name.encode() for name in (*HOP_BY_HOP, *_OURS, "content-length", "server", "date"))
"""What a gateway says itself, or what is between it and the sidecar."""
_OUTCOME: Final = OUTCOME.encode()
_RETRY_AFTER: Final = RETRY_AFTER.encode()


class ResponseHeaders(NamedTuple):
    """What headers say; of several with one name the last.

    Attributes:
        outcome: Who made the answer, one of `marway.wire.headers.Outcome`, or None.
        retry_after_s: Seconds, or None.
        content_length: Bytes of the body, or None.
        block: What the client gets.
    """

    outcome: str | None
    retry_after_s: float | None
    content_length: int | None
    block: HeaderBlock


def parse_response_headers(text: bytes) -> ResponseHeaders:
    """Return what headers say; those in front of an empty line are parsed once for the many answers that have them.

    Args:
        text: Lines, each with its end, names in lower case.

    Raises:
        ValueError: They are no headers.
    """
    shared, _, own = text.rpartition(b"\r\n\r\n")
    return _parse(own, _parse_shared(shared + b"\r\n") if shared else _NOTHING)


def _parse(text: bytes, before: ResponseHeaders) -> ResponseHeaders:
    """Return what headers say behind others."""
    outcome, retry_after_s, length, (block, number, _) = before
    *lines, end = text.split(b"\r\n")
    if end:
        raise ValueError("the last line has no end")
    not_passed = _NOT_PASSED
    if b"connection: " in text:  # those that it names belong to the connection too (RFC 9110 §7.6.1)
        named = [line[12:].lower().split(b",") for line in lines if line.startswith(b"connection: ")]
        not_passed |= {name.strip() for names in named for name in names}
    for line in lines:
        name, found, value = line.partition(b": ")
        if not found or name != name.lower():
            raise ValueError("a line is no header")  # or one that would not be known, a second length among them
        if name == b"content-length":
            length = int(value)
        elif name == _OUTCOME:
            outcome = value.decode("latin-1")
        elif name not in not_passed and name[:9] != b"x-marway-":
            block += line + b"\r\n"
            number += 1
            if name == _RETRY_AFTER:
                retry_after_s = seconds_of(value)
    return ResponseHeaders(outcome, retry_after_s, length, HeaderBlock(block, number))


_NOTHING: Final = ResponseHeaders(None, None, None, HeaderBlock(b"", 0))


@lru_cache(maxsize=1024)
def _parse_shared(text: bytes) -> ResponseHeaders:
    return _parse(text, _NOTHING)


def seconds_of(retry_after: str | bytes | None) -> float | None:
    """Return a `Retry-After` in seconds; None without one, or where it is no number of them."""
    try:
        value = float(retry_after) if retry_after is not None else None
    except ValueError:
        return None  # an HTTP date; no sidecar sends one
    return value if value is not None and 0 <= value < 86_400 else None
