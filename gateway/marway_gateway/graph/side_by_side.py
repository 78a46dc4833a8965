"""Things that run side by side, of which none runs on when the rest is no longer waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from marway_gateway.graph.messages import Message
from marway_gateway.graph.steps import StepFailed

__all__ = ["settled"]

K = TypeVar("K")


async def settled(
    running: Mapping[K, Coroutine[Any, Any, Message]],
    take: Callable[[K, Message | StepFailed], bool],
    *,
    at_once: int | None = None,
) -> None:
    """Run all, and give ``take`` what comes of each, until it has enough or raises; those that still run are ended.

    Of those that end in the same moment the first by order is taken first. When this returns, or raises, or is
    cancelled, all have ended.

    Args:
        running: What runs, by name.
        take: Takes in what came of one; returns whether no more is wanted.
        at_once: How many may run at once; None: all.
    """
    waiting = iter(running.items())
    tasks: dict[asyncio.Task[Message], K] = {}
    pending: set[asyncio.Task[Message]] = set()

    def start(count: int) -> None:
        for _, (name, coroutine) in zip(range(count), waiting):  # noqa: B905  # as many as there still are
            task = asyncio.create_task(coroutine, name=f"graph:{name}")
            tasks[task] = name
            pending.add(task)

    try:
        start(at_once or len(running))
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in tasks if each in done]:
                failure = task.exception()
                if failure is not None and not isinstance(failure, StepFailed):
                    raise failure
                if take(tasks.pop(task), task.result() if failure is None else failure):
                    return
            start(len(done))
    finally:
        for _, coroutine in waiting:
            coroutine.close()
        await _ended(tasks)


async def _ended(tasks: Collection[asyncio.Task[Message]]) -> None:
    """Have tasks end, however often this is cancelled meanwhile."""
    left = set(tasks)
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while left:
        try:
            done, left = await asyncio.wait(left)
        except asyncio.CancelledError as exc:
            cancelled = exc
            continue
        for task in done:
            if not task.cancelled():
                task.exception()  # asked for, so that asyncio does not complain
    if cancelled is not None:
        raise cancelled
