"""What the headers of a sidecar's answer say to its gateway, and what of them its client gets."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from marway.wire import headers as wire
from marway.wire.headers import HOP_BY_HOP, OUTCOME, RETRY_AFTER
from marway_gateway.transport.base import Headers, Lines, lines_of

__all__ = ["Said", "said_in_lines", "said_of"]

_OURS: Final = (wire.REQUEST_ID, wire.REQUEST_GROUP_ID, wire.MODEL_NAME, wire.MODEL_VERSION, wire.MODEL_ID)
_NOT_PASSED: Final = frozenset(name.encode() for name in (*HOP_BY_HOP, *_OURS, "content-length", "server", "date"))
"""What a gateway says itself, or what is between it and the sidecar."""
_OUTCOME: Final = OUTCOME.encode()
_RETRY_AFTER: Final = RETRY_AFTER.encode()


class Said(NamedTuple):
    """What headers say; of several with one name the last.

    Attributes:
        outcome: Who made the answer, one of `marway.wire.headers.Outcome`, or None.
        retry_after: As it was sent, or None.
        content_length: Bytes of the body, or None.
        passed: What the client gets.
        lines: The same, as it goes out.
    """

    outcome: str | None
    retry_after: bytes | None
    content_length: int | None
    passed: Headers
    lines: Lines


def said_of(headers: Headers) -> Said:
    """Return what the headers of an answer say, names in lower case."""
    passed = [each for each in headers if each[0] not in _NOT_PASSED and each[0][:9] != b"x-marway-"]
    said = dict(headers)
    if b"connection" in said:
        named = {each.strip().lower() for name, value in headers if name == b"connection" for each in value.split(b",")}
        passed = [each for each in passed if each[0] not in named]
    outcome, length = said.get(_OUTCOME), said.get(b"content-length")
    return Said(
        outcome.decode("latin-1") if outcome is not None else None,
        said.get(_RETRY_AFTER),
        int(length) if length is not None else None,
        passed,
        lines_of(passed),
    )


def said_in_lines(text: bytes) -> Said:
    """Return what header lines say; what stands in front of an empty line is taken apart once for many answers.

    Args:
        text: Lines, each with its end, names in lower case, without any that HTTP has between two hops.

    Raises:
        ValueError: They are no headers.
    """
    known, _, own = text.rpartition(b"\r\n\r\n")
    if not known:
        return _apart(own)
    before, here = _known(known + b"\r\n"), _apart(own)
    return Said(
        here.outcome or before.outcome,
        here.retry_after or before.retry_after,
        here.content_length if here.content_length is not None else before.content_length,
        before.passed + here.passed,
        Lines(before.lines.text + here.lines.text, before.lines.number + here.lines.number),
    )


def _apart(text: bytes) -> Said:
    """Do what `said_of` does, in one go."""
    outcome = retry_after = length = None
    passed: Headers = []
    lines = b""
    *all_lines, end = text.split(b"\r\n")
    if end:
        raise ValueError("the last line has no end")
    for line in all_lines:
        name, found, value = line.partition(b": ")
        if not found or name != name.lower():
            raise ValueError("a line is no header")  # or one that would not be known, a second length among them
        if name == b"content-length":
            length = int(value)
        elif name == _OUTCOME:
            outcome = value.decode("latin-1")
        elif name not in _NOT_PASSED and name[:9] != b"x-marway-":
            passed.append((name, value))
            lines += line + b"\r\n"
            if name == _RETRY_AFTER:
                retry_after = value
    return Said(outcome, retry_after, length, passed, Lines(lines, len(passed)))


_known: Final = lru_cache(maxsize=1024)(_apart)
