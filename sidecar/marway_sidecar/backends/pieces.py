"""Answers in pieces, for callers who want them whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from marway.wire.envelope import Answer

__all__ = ["whole_answer"]


async def whole_answer(stream: AsyncGenerator[Answer, None]) -> Answer:
    """Return an answer in pieces as one, as a caller sees it who reads them to their end; an error is all of it."""
    pieces: list[Answer] = []
    async with aclosing(stream):
        async for piece in stream:
            if piece.kind == "error":
                return piece
            pieces.append(piece)
    measured = [each for piece in pieces for each in piece.measured]
    return replace(pieces[0], body=b"".join(piece.body for piece in pieces), measured=measured)
