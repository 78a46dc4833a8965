"""What documents of OpenAI's API say of tokens and of the model, over REST and in events."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import orjson

from marway.errors import MarwayError
from marway_gateway.observe.observed import Tokens

__all__ = ["EventReader", "renamed"]

_LINE_BYTES_MAX: Final = 16 * 1024 * 1024
_DATA: Final = b"data:"


def renamed(data: bytes, model: str) -> tuple[bytes, Tokens | None]:
    """Return a JSON document in which `model` is ``model``, and the tokens that it counts.

    What is no JSON object, or says nothing of a model, is returned as it is.
    """
    try:
        document, write = _read(data)
    except (ValueError, RecursionError):
        return data, None
    if not isinstance(document, dict):
        return data, None
    changed, tokens = False, None
    # The events of `responses` have the response within.
    for each in (document, document.get("response")):
        if isinstance(each, dict):
            tokens = _tokens(each.get("usage")) or tokens
            if isinstance(each.get("model"), str) and each["model"] != model:
                each["model"] = model
                changed = True
    return (write(document) if changed else data), tokens


def _read(data: bytes) -> tuple[Any, Callable[[Any], bytes]]:
    """Return a JSON document, and what writes it: many streams are thousands of events a second."""
    try:
        return orjson.loads(data), orjson.dumps
    except orjson.JSONDecodeError:
        # Numbers that JSON has not, among `logprobs`, and half characters, which the standard library lets through.
        return json.loads(data), lambda document: json.dumps(document, separators=(",", ":")).encode()


def _tokens(usage: Any) -> Tokens | None:
    """Return what a `usage` says, in the words of completions or of responses."""
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
    counts = [count if type(count) is int and count > 0 else 0 for count in (prompt, completion)]
    return Tokens(*counts) if any(counts) else None


class EventReader:
    """Passes on a model server's events as they come, cut anywhere, with another `model` in their data.

    Args:
        model: The model.
        hides_count: Whether an event that has no choices and counts tokens is left out.

    Attributes:
        tokens: What the last event that counted tokens said.
        done: Whether the event `[DONE]` came.
    """

    def __init__(self, model: str, *, hides_count: bool = False) -> None:
        self.tokens: Tokens | None = None
        self.done = False
        self._model = model
        self._hides_count = hides_count
        self._hidden = False  # up to the empty line that ends the event
        self._rest = b""

    def passed(self, data: bytes) -> bytes:
        """Return the whole lines that are there with ``data``.

        Raises:
            MarwayError: A line has no end.
        """
        lines, end, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > _LINE_BYTES_MAX:
            raise MarwayError(f"the model server sent an event of more than {_LINE_BYTES_MAX} bytes")
        self._rest = rest
        return b"".join(map(self._line, (lines + end).splitlines(keepends=True)))

    def rest(self) -> bytes:
        """Return what came behind the last whole line."""
        rest, self._rest = self._rest, b""
        return self._line(rest)

    def _line(self, line: bytes) -> bytes:
        if self._hidden:
            self._hidden = bool(line.strip(b"\r\n"))
            return b""
        if not line.startswith(_DATA):
            return line
        data = line[len(_DATA) :].strip()
        if data == b"[DONE]":
            self.done = True
        if not data.startswith(b"{"):
            return line
        changed, tokens = renamed(data, self._model)
        self.tokens = tokens or self.tokens
        if self._hides_count and tokens is not None and _has_no_choices(data):
            self._hidden = True
            return b""
        if changed is data:
            return line
        return b"data: %b%b" % (changed, line[len(line.rstrip(b"\r\n")) :])


def _has_no_choices(data: bytes) -> bool:
    """Return whether a document that was read already has none."""
    return bool(json.loads(data).get("choices") == [])
