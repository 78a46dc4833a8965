"""The rest of a large HTTP body, taken off a connection as it comes and not through its parser.

A parser and a server copy each piece of a body three times before the application sees it. Of a body whose length was
said, nothing has to be parsed: only its bytes are to be counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

__all__ = ["LARGE_BODY_BYTES", "BodyPieces"]

LARGE_BODY_BYTES: Final = 64 * 1024
"""Bodies from here on, in bytes: below it they come whole, or nearly, and the parser's copies are small."""


class BodyPieces:
    """Bytes of one body that have come and were not taken yet.

    Args:
        came: What the parser had of it.
        left: How many bytes are to come.

    Attributes:
        held: Bytes that came and nobody took.
        left: Bytes that are to come.
    """

    __slots__ = ("_pieces", "held", "left")

    def __init__(self, came: bytes, left: int) -> None:
        self._pieces = deque((came,) if came else ())
        self.held = len(came)
        self.left = left

    @classmethod
    def after(cls, came: bytes | bytearray, headers: Iterable[tuple[bytes, bytes]]) -> BodyPieces | None:
        """Return the rest of a body of which the beginning came; None when it is small, or of unknown length.

        Args:
            came: What the parser had of it.
            headers: The message's, checked by the parser, names in lower case.
        """
        length = None
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                return None
        if length is None or length <= max(LARGE_BODY_BYTES, len(came)):
            return None
        return cls(bytes(came), length - len(came))

    def feed(self, data: bytes) -> bytes:
        """Take in what came next, and return what of it lies behind the end of the body."""
        rest = b""
        if len(data) > self.left:
            data, rest = data[: self.left], data[self.left :]
        if data:
            self._pieces.append(data)
        self.held += len(data)
        self.left -= len(data)
        return rest

    def drop(self) -> None:
        """Let go of all that is held."""
        self._pieces.clear()
        self.held = 0

    def take(self) -> bytes:
        """Return the next piece; b"" when there is none."""
        piece = self._pieces.popleft() if self._pieces else b""
        self.held -= len(piece)
        return piece
