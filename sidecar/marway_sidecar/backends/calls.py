"""What calls of any model server have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from marway.wire.envelope import Answer, Row

__all__ = ["each_alone", "whole_answer"]


async def each_alone(ask: Callable[[Row], Awaitable[Answer]], rows: Sequence[Row]) -> list[Answer]:
    """Return the answers to rows, each asked for by itself, side by side; the first that fails ends the others."""
    if len(rows) == 1:
        return [await ask(rows[0])]

    async def answer(row: Row) -> Answer:
        return await ask(row)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(row), name="predict a row") for row in rows]
    except ExceptionGroup as exc:
        raise exc.exceptions[0] from exc
    return [task.result() for task in tasks]


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
