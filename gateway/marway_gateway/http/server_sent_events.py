"""Server-sent events (WHATWG HTML §9.2): each piece of a streaming answer as one event."""

from __future__ import annotations

import codecs
import re
from typing import Final

__all__ = ["EVENT_STREAM", "EventStream", "wants_events"]

EVENT_STREAM: Final = "text/event-stream"

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_REFUSED: Final = re.compile(r";\s*q=0(?:\.0{0,3})?\s*(?:;|$)")


def wants_events(accept: str | None) -> bool:
    """Return whether an `Accept` header names event streams; a wildcard does not."""
    for each in (accept or "").lower().split(","):
        kind, _, parameters = each.partition(";")
        if kind.strip() == EVENT_STREAM and not _REFUSED.search(f";{parameters}"):
            return True
    return False


class EventStream:
    """Writes one answer as events.

    A piece is an event of the default type, whose data is the piece's text: a character whose bytes are spread over two
    pieces belongs to the second. `event: end` says that the answer is whole, `event: error` that it is not and why;
    a stream that stops without either was cut off.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def piece(self, data: bytes) -> bytes:
        """Return the event for a piece; b"" when it ends no character."""
        text = self._decoder.decode(data)
        return _event(text) if text else b""

    def end(self) -> bytes:
        """Return what ends a whole answer."""
        rest = self._decoder.decode(b"", final=True)
        return (_event(rest) if rest else b"") + _event("", kind="end")

    def error(self, document: bytes) -> bytes:
        """Return what ends an answer that failed: ``document`` is the error in the surface's own form."""
        return _event(document.decode(), kind="error")


def _event(text: str, *, kind: str | None = None) -> bytes:
    lines = [f"data: {line}" for line in _LINE_END.split(text)]
    if kind is not None:
        lines.insert(0, f"event: {kind}")
    return "\n".join((*lines, "", "")).encode()
