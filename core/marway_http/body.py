"""A body between the connection that it comes over and who takes it, in the pieces that it comes in.

A server that joins the pieces copies a body three times before the application sees it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["LARGE_BODY_BYTES", "BodyPieces"]

LARGE_BODY_BYTES: Final = 64 * 1024
"""Bodies from here on, in bytes: below it they come whole, or nearly, and the parser's copies are small."""


class BodyPieces:
    """Bytes of one body that have come and were not taken yet.

    Attributes:
        held: Bytes that came and nobody took.
    """

    __slots__ = ("_pieces", "held")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.held = 0

    def add(self, data: bytes) -> None:
        """Take in what came next."""
        if data:
            self._pieces.append(data)
            self.held += len(data)

    def take(self) -> bytes:
        """Return what has come: a large piece by itself, small ones joined; b"" when there is nothing."""
        pieces = self._pieces
        if not pieces:
            return b""
        if len(pieces) == 1 or len(pieces[0]) >= LARGE_BODY_BYTES:
            piece = pieces.popleft()
            self.held -= len(piece)
            return piece
        piece = self.whole()
        self.drop()
        return piece

    def whole(self) -> bytes:
        """Return all that has come, which stays here."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def drop(self) -> None:
        """Let go of all that is held."""
        self._pieces.clear()
        self.held = 0
