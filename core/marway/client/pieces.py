"""The pieces of a streamed answer, as its bytes come: text, bytes, or server-sent events (WHATWG HTML §9.2)."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from marway.errors import MarwayError
from marway.wire.problems import Problem, parse_problem

__all__ = ["EVENTS", "Event", "Pieces", "Reader", "accept_of", "reader_of"]

Pieces = Literal["text", "bytes", "events"]
EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Event:
    """One server-sent event.

    Attributes:
        data: Its text.
        event: Its type; `message` where the model named none.
        id: The last id that was named, or nothing.
    """

    data: str
    event: str = "message"
    id: str = ""

    def json(self) -> Any:
        """Return what its data says as JSON."""
        return json.loads(self.data)


class Reader(Protocol):
    """Takes bytes in as they come, gives the pieces that are whole."""

    def feed(self, data: bytes) -> list[Any]:
        """Return the pieces that end in ``data``.

        Raises:
            MarwayError: The answer failed, and says so.
        """
        ...

    def end(self) -> list[Any]:
        """Return what is left when the body has ended; raises as `feed`."""
        ...


def accept_of(pieces: Pieces) -> str | None:
    """Return the `Accept` that asks for such pieces.

    Raises:
        ValueError: There are no such pieces.
    """
    if pieces not in ("text", "bytes", "events"):
        raise ValueError(f"pieces={pieces!r}: there are 'text', 'bytes' and 'events'")
    return None if pieces == "bytes" else EVENTS


def reader_of(pieces: Pieces, content_type: str) -> Reader:
    """Return what reads the pieces of an answer of a content type."""
    if pieces == "bytes":
        return _Bytes()
    if content_type.partition(";")[0].strip().lower() == EVENTS:
        return _Events(texts=pieces == "text")
    return _Text(events=pieces == "events")


class _Bytes:
    def feed(self, data: bytes) -> list[Any]:
        return [data]

    def end(self) -> list[Any]:
        return []


class _Text:
    """An answer that is no event stream: a model that does not stream answers as ever."""

    def __init__(self, *, events: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._events = events

    def feed(self, data: bytes, *, final: bool = False) -> list[Any]:
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as exc:
            raise MarwayError("the answer is no text: take it with `stream_bytes`") from exc
        if not text:
            return []
        return [Event(text) if self._events else text]

    def end(self) -> list[Any]:
        return self.feed(b"", final=True)


class _Events:
    """Events of the gateway, one for each piece, or the model's own.

    The gateway's last is `end` without data, or `error` with the error as a document: neither is given on.
    """

    def __init__(self, *, texts: bool) -> None:
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._begun = False
        self._line = ""
        self._after_return = False
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        self._held: Event | None = None

    def feed(self, data: bytes) -> list[Any]:
        text = self._decoder.decode(data)
        if self._after_return and text:
            text, self._after_return = text.removeprefix("\n"), False
        self._after_return = text.endswith("\r")
        if not self._begun and text:
            text, self._begun = text.removeprefix("\ufeff"), True
        lines = (self._line + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        self._line = lines.pop()
        found: list[Any] = []
        for line in lines:
            found += self._take(line)
        return found

    def end(self) -> list[Any]:
        return []  # an event without its empty line is not whole: the standard drops it

    def _take(self, line: str) -> list[Any]:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name == "event":
                self._event = value
            elif name == "id" and "\0" not in value:
                self._id = value
            return []
        data, kind = self._data, self._event or "message"
        self._data, self._event = [], ""
        if not data:
            return []
        event = Event("\n".join(data), kind, self._id)
        before, self._held = self._held, None
        found = [] if before is None else [before]
        if kind == "error" and (error := _error_in(event.data)) is not None:
            raise error
        if kind == "end" and not event.data:
            self._held = event  # the gateway's own, unless more of the model's come behind it
        else:
            found.append(event)
        return [each.data for each in found] if self._texts else found


def _error_in(data: str) -> MarwayError | None:
    """Return the error that a document of the gateway's stands for, None where it is the model's own event."""
    try:
        status = Problem.model_validate_json(data).status
    except ValueError:
        return None
    return parse_problem(data.encode(), status=status)
