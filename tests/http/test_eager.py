"""Coroutines that begin at once and go on within the call that brings what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from marway_http.eager import EagerTask, InlineFuture, in_task

LogOf = Callable[[], list[str]]


async def outside_tasks(do: Callable[[], None]) -> None:
    """Call ``do`` as the loop calls what reads a socket: within no task."""
    called = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            do()
        except BaseException as exc:
            called.set_exception(exc)
        else:
            called.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    await called


def waiting(log: list[str], future: asyncio.Future[str]) -> Coroutine[Any, Any, None]:
    async def inner() -> str:
        return await future

    async def run() -> None:
        log.append("begun")
        try:
            log.append(await inner())
        except BaseException as exc:
            log.append(type(exc).__name__)
            raise

    return run()


async def test_all_happens_within_the_calls() -> None:
    """It begins where it is made, and goes on where its future is settled, with no turn of the loop between."""
    log: list[str] = []

    def do() -> None:
        future: InlineFuture[str] = InlineFuture()
        EagerTask(waiting(log, future), lambda: log.append("done"))
        log.append("made")
        future.set_result("result")
        log.append("settled")

    await outside_tasks(do)
    assert log == ["begun", "made", "result", "done", "settled"]


async def test_other_futures_cost_a_turn() -> None:
    """On any other future it goes on a turn later, as a task does, with its result or its error."""
    log: list[str] = []
    ended = asyncio.Event()
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def do() -> None:
        EagerTask(waiting(log, future), ended.set)
        future.set_result("result")
        log.append("settled")

    await outside_tasks(do)
    await ended.wait()
    assert log == ["begun", "settled", "result"]


@pytest.mark.parametrize("inline", [True, False])
async def test_errors_are_raised_where_it_waits(inline: bool) -> None:
    """A future's error is raised in the coroutine, which may go on from it."""
    log: list[str] = []
    ended = asyncio.Event()
    future: asyncio.Future[None] = InlineFuture() if inline else asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            await future
        except ValueError as exc:
            log.append(str(exc))

    await outside_tasks(lambda: EagerTask(run(), ended.set) and None)
    await outside_tasks(lambda: future.set_exception(ValueError("wrong")))
    await ended.wait()
    assert log == ["wrong"]


async def test_within_a_task_it_goes_on_later() -> None:
    """A future that another task settles does not have the coroutine take that task for its own."""
    log: list[asyncio.Task[Any] | None] = []
    ended = asyncio.Event()
    future: InlineFuture[None] = InlineFuture()

    async def run() -> None:
        await future
        log.append(asyncio.current_task())

    await outside_tasks(lambda: EagerTask(run(), ended.set) and None)
    future.set_result(None)
    assert log == []
    await ended.wait()
    assert log == [None]


async def test_a_task_where_one_is_needed() -> None:
    """After `in_task` it has a task, keeps it, and all of asyncio can be used; inline futures work there too."""
    log: list[object] = []
    ended = asyncio.Event()
    future: InlineFuture[str] = InlineFuture()

    async def run() -> None:
        log.append(asyncio.current_task())
        await in_task()
        task = asyncio.current_task()
        await in_task()
        log.append(task is not None and asyncio.current_task() is task)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        log.append(await future)

    await outside_tasks(lambda: EagerTask(run(), ended.set) and None)
    future.set_result("result")
    await ended.wait()
    assert log == [None, True, "result"]


@pytest.mark.parametrize("how", ["inline", "future", "task"])
async def test_interrupting(how: str) -> None:
    """Interrupted, it is cancelled where it waits, once, with the first reason; so is the future it waits for."""
    log: list[object] = []
    ended = asyncio.Event()
    future: asyncio.Future[None] = InlineFuture() if how == "inline" else asyncio.get_running_loop().create_future()
    eager: list[EagerTask] = []

    async def run() -> None:
        if how == "task":
            await in_task()
        try:
            await future
        except asyncio.CancelledError:
            log.append(eager[0].reason)
            await asyncio.sleep(0)
            log.append("cleaned up")
            raise

    await outside_tasks(lambda: eager.append(EagerTask(run(), ended.set)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone = ConnectionError("gone")
    eager[0].interrupt(gone)
    eager[0].interrupt(ValueError("a second reason"))
    await ended.wait()
    assert log == [gone, "cleaned up"]
    assert future.cancelled()
    eager[0].interrupt(ValueError("it has ended"))


async def test_what_it_lets_out_is_reported() -> None:
    """An error that the coroutine lets out goes to the loop's exception handler, and it has ended."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    wrong = ValueError("wrong")

    async def run() -> None:
        raise wrong

    await outside_tasks(lambda: EagerTask(run(), lambda: told.append("done")) and None)
    assert told == ["done", wrong]


async def test_a_future_that_is_done_is_no_wait() -> None:
    """What is settled already is not waited for."""
    log: list[str] = []

    def do() -> None:
        future: InlineFuture[str] = InlineFuture()
        future.set_result("result")
        EagerTask(waiting(log, future))
        log.append("made")

    await outside_tasks(do)
    assert log == ["begun", "result", "made"]


@pytest.mark.parametrize("next_wait", ["future", "turn", "task"])
async def test_interrupted_while_it_runs(next_wait: str) -> None:
    """Interrupted by what it calls itself, it is cancelled where it waits next."""
    log: list[object] = []
    ended = asyncio.Event()
    future: InlineFuture[None] = InlineFuture()
    eager: list[EagerTask] = []

    async def run() -> None:
        await future
        eager[0].interrupt(ConnectionError())
        try:
            if next_wait == "future":
                await asyncio.get_running_loop().create_future()
            elif next_wait == "turn":
                await asyncio.sleep(0)
            else:
                await in_task()
        finally:
            log.append(type(eager[0].reason))

    await outside_tasks(lambda: eager.append(EagerTask(run(), ended.set)))
    await outside_tasks(lambda: future.set_result(None))
    await ended.wait()
    assert log == [ConnectionError]


async def test_interrupted_before_its_task_begins() -> None:
    """Between asking for a task and having it, an interruption reaches the coroutine all the same."""
    log: list[object] = []
    ended = asyncio.Event()

    async def run() -> None:
        try:
            await in_task()
            log.append("not reached")
        finally:
            log.append("cleaned up")

    await outside_tasks(lambda: EagerTask(run(), ended.set).interrupt(ConnectionError()))
    await ended.wait()
    assert log == ["cleaned up"]


async def test_interrupted_between_result_and_going_on() -> None:
    """A result that came is taken before an interruption that comes later; it goes on once."""
    log: list[object] = []
    ended = asyncio.Event()
    first: InlineFuture[str] = InlineFuture()
    second: InlineFuture[str] = InlineFuture()

    async def run() -> None:
        log.append(await first)
        try:
            await second
        except asyncio.CancelledError:
            log.append("cancelled")

    eager: list[EagerTask] = []
    await outside_tasks(lambda: eager.append(EagerTask(run(), ended.set)))
    first.set_result("result")  # within a task, so that it goes on in a later turn
    eager[0].interrupt(ConnectionError())
    await ended.wait()
    assert log == ["result", "cancelled"]
