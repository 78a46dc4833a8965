"""Reads the text format of Protocol Buffers, which Triton's `config.pbtxt` is in, without its message types.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/. Extensions, `Any` and a sign apart from its number are
not read: no field of Triton's `ModelConfig` has one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Union

from marway.errors import InvalidArchive, clip

__all__ = ["Message", "Value", "parse_text_format"]

Value = Union[str, "Message"]
Message = Mapping[str, Sequence[Value]]
"""Fields by name, each with all its values in their order; a number or a name is a text, as it stands there."""

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<word>[+-]?[0-9.]+[eE][+-]?[0-9]+[fF]?|[+-]?[A-Za-z0-9_.]+)
    |(?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_CLOSES: Final = {"{": "}", "<": ">"}
_ESCAPE: Final = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|(.))", re.DOTALL
)
_SIMPLE: Final = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\",
    b"'": b"'", b'"': b'"', b"?": b"?",
}  # fmt: skip
_DEPTH_MAX: Final = 64


def parse_text_format(text: str, source: str) -> Message:
    """Return the fields of ``text``, which came from ``source``.

    Raises:
        InvalidArchive: It is not in the text format; the message names the line.
    """
    return _Parser(text, source).message(None, 0)


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self._text, self._source = text, source
        self._at = self._start = 0

    def _wrong(self, what: str) -> InvalidArchive:
        line = self._text.count("\n", 0, self._start) + 1
        return InvalidArchive(f"{self._source}:{line}: {what}")

    def _unexpected(self, token: str, wanted: str) -> InvalidArchive:
        return self._wrong(f"{clip(ascii(token), 40)} stands where {wanted} should" if token else "it ends early")

    def _next(self) -> tuple[str, str]:
        """Return the next token and its kind; two empty texts at the end."""
        while self._at < len(self._text):
            self._start = self._at
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise self._wrong(f"{self._text[self._at]!a} is not understood here")
            self._at = found.end()
            if found.lastgroup != "space":
                return found[0], found.lastgroup or ""
        self._start = self._at
        return "", ""

    def _peek(self) -> str:
        before = self._at
        token, _ = self._next()
        self._at = before
        return token

    def message(self, closing: str | None, depth: int) -> Message:
        """Read fields until ``closing``; None stands for the end of the text."""
        if depth > _DEPTH_MAX:
            raise self._wrong(f"messages lie in one another more than {_DEPTH_MAX} times")
        fields: dict[str, list[Value]] = {}
        while True:
            name, kind = self._next()
            if name == (closing or ""):
                return fields
            if kind != "word":
                raise self._unexpected(name, "a field's name")
            fields.setdefault(name, []).extend(self._values(depth))
            if self._peek() in (",", ";"):
                self._next()

    def _values(self, depth: int) -> list[Value]:
        if self._peek() == ":":
            self._next()
        elif self._peek() not in ("{", "<", "["):
            self._next()
            raise self._wrong("a ':' is missing after a field's name")
        if self._peek() != "[":
            return [self._value(depth)]
        self._next()
        found: list[Value] = []
        while self._peek() != "]":
            if found and self._next()[0] != ",":
                raise self._wrong("a ',' is missing in a list")
            found.append(self._value(depth))
        self._next()
        return found

    def _value(self, depth: int) -> Value:
        token, kind = self._next()
        if token in _CLOSES:
            return self.message(_CLOSES[token], depth + 1)
        if kind == "word":
            return token
        if kind != "text":
            raise self._unexpected(token, "a value")
        text = self._unquoted(token)
        while self._peek()[:1] in ('"', "'"):  # texts beside one another are one
            text += self._unquoted(self._next()[0])
        return text

    def _unquoted(self, token: str) -> str:
        try:
            return _ESCAPE.sub(_meant, token[1:-1].encode()).decode()
        except (KeyError, OverflowError, ValueError) as exc:
            raise self._wrong(f"{clip(ascii(token), 40)} is no text") from exc


def _meant(found: re.Match[bytes]) -> bytes:
    """Return the bytes that an escape stands for."""
    octal, hexadecimal, point, simple = found.groups()
    if simple is not None:
        return _SIMPLE[simple]
    if point is not None:
        return chr(int(point[1:], 16)).encode()
    return bytes([int(octal, 8) if octal is not None else int(hexadecimal, 16)])
