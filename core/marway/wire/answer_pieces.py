"""Answers of one row that come one after another in one body: continuous batching behind TorchServe's REST front end.

Each piece: whether it is the last (1 byte), the length of an envelope of one answer (4 bytes, big endian), and that.
Standard library only: workers of TorchServe run this too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from marway.wire.envelope import Answer, decode_answers, encode_answers

__all__ = ["PiecesReader", "piece_of"]

_HEAD: Final = struct.Struct("!?I")


def piece_of(answers: Sequence[Answer], *, last: bool) -> bytes:
    """Return an answer as a piece."""
    envelope = encode_answers(answers)
    return _HEAD.pack(last, len(envelope)) + envelope


class PiecesReader:
    """Makes answers of a body that comes cut anywhere.

    Attributes:
        whole: Whether the last piece has come.
    """

    def __init__(self) -> None:
        self.whole = False
        self._come = bytearray()

    def feed(self, data: bytes) -> Iterator[Answer]:
        """Take in what has come, and yield the answers that are there.

        Raises:
            ValueError: It is no such body.
        """
        self._come += data
        while len(self._come) >= _HEAD.size:
            last, size = _HEAD.unpack_from(self._come)
            end = _HEAD.size + size
            if len(self._come) < end:
                return
            answers = decode_answers(bytes(self._come[_HEAD.size : end]))
            del self._come[:end]
            self.whole = self.whole or last
            yield from answers
