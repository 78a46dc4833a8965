"""Runs the coroutine of a request at once, and without a task for as long as it needs none.

asyncio's `Task` begins a coroutine in the next turn of the loop, and goes on with it one turn after what it waits for
has come. For a small prediction, task and turns cost about as much as all else that is done for it. An `EagerTask`
begins in the very call that makes it (as eager tasks of Python 3.12 do), and goes on in the very call that brings the
result of an `InlineFuture`. Code is written once, as coroutines; whether it runs at once or later is no matter of it.

What needs asyncio's current task (`asyncio.timeout`, task groups, anyio) says so first: ``await in_task()``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Final, Generic, TypeVar

__all__ = ["EagerTask", "InlineFuture", "in_task"]

T = TypeVar("T")

_IN_TASK: Final = object()


class InlineFuture(asyncio.Future[T], Generic[T]):
    """A future whose waiter, if it is an `EagerTask`, goes on within `set_result` and `set_exception`.

    It has one waiter. With any other than an `EagerTask` it is as asyncio's.
    """

    _waiter: EagerTask | None = None

    def set_result(self, result: T) -> None:
        """Settle it; the waiter goes on before this returns."""
        super().set_result(result)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter._go_on(self)

    def set_exception(self, exception: type[BaseException] | BaseException) -> None:
        """Settle it with an error; the waiter goes on before this returns."""
        super().set_exception(exception)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter._go_on(self)


class EagerTask:
    """A coroutine that runs from the moment in which this is made until it first has to wait.

    Args:
        run: The coroutine. It handles its own errors: one that leaves it goes to the loop's exception handler.
        done: Called once when it has ended, however it did.

    Attributes:
        reason: Why it was interrupted, or None.
    """

    __slots__ = ("_done", "_due", "_loop", "_run", "_task", "_waits_for", "reason")

    def __init__(self, run: Coroutine[Any, Any, None], done: Callable[[], None] | None = None) -> None:
        self.reason: Exception | None = None
        self._run: Coroutine[Any, Any, None] | None = run
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._waits_for: asyncio.Future[Any] | None = None
        self._due = False  # interrupted while it ran, and not told yet
        self._step(run.send, None)

    def interrupt(self, reason: Exception) -> None:
        """Have `asyncio.CancelledError` raised where it waits; does nothing once it has ended.

        Args:
            reason: For the coroutine to look up (`reason`), which is the first one's if there are several.
        """
        if self._run is None or self.reason is not None:
            return
        self.reason = reason
        if self._task is not None:
            self._task.cancel()
        elif (future := self._waits_for) is None or not future.cancel():
            self._due = True  # it runs, or is about to with what it has waited for
        elif isinstance(future, InlineFuture):
            # Cancelled, as asyncio's Task does it, so that whoever was going to settle it can see that.
            future._waiter = None
            self._go_on(future)

    # -- running -------------------------------------------------------------------------------------------

    def _go_on(self, future: asyncio.Future[Any]) -> None:
        """Go on after a future, which is done."""
        if asyncio.current_task(self._loop) is not None:
            # Within another task, what asks for the current one would be given that.
            self._loop.call_soon(self._wake, future)
        else:
            self._wake(future)

    def _wake(self, future: asyncio.Future[Any] | None) -> None:
        self._waits_for = None
        if self._run is not None:
            # What came of the future, the coroutine takes from it itself.
            self._step(self._run.send, None)

    def _step(self, step: Callable[[Any], Any], value: Any) -> None:
        try:
            future = step(value)
        except StopIteration:
            self._end()
        except BaseException as exc:
            self._end()
            if not isinstance(exc, (Exception, asyncio.CancelledError)):
                raise
            if not (isinstance(exc, asyncio.CancelledError) and self.reason is not None):
                context = {"message": "a request's coroutine failed", "exception": exc}
                self._loop.call_exception_handler(context)
        else:
            self._wait(future)

    def _wait(self, future: Any) -> None:
        if self._due:
            self._due = False
            if future is None or future is _IN_TASK:
                self._step(self._run.throw, asyncio.CancelledError())  # type: ignore[union-attr]  # it has not ended
                return
            future.cancel()
        if future is _IN_TASK:
            self._loop.create_task(self._in_task(), name="request")
        elif future is None:
            self._loop.call_soon(self._wake, None)
        else:
            future._asyncio_future_blocking = False
            self._waits_for = future
            if type(future) is InlineFuture:
                if future.done():
                    self._go_on(future)
                else:
                    future._waiter = self
            else:
                future.add_done_callback(self._wake)

    async def _in_task(self) -> None:
        assert self._run is not None
        self._task = asyncio.current_task()  # from here on: one that has not begun ends unseen when it is cancelled
        try:
            await _rest_of(self._run, cancelled=self._due)
        except asyncio.CancelledError:
            if self.reason is None:
                raise
        finally:
            self._end()

    def _end(self) -> None:
        self._run = None
        done, self._done = self._done, None
        if done is not None:
            done()


@coroutine
def _rest_of(run: Coroutine[Any, Any, None], *, cancelled: bool) -> Generator[Any, Any, None]:
    """Go on with a coroutine that has begun, within the current task; with a cancel where one is due."""
    step: Callable[[Any], Any] = run.throw if cancelled else run.send
    value: Any = asyncio.CancelledError() if cancelled else None
    while True:
        try:
            future = step(value)
        except StopIteration:
            return
        try:
            value = yield None if future is _IN_TASK else future
            step = run.send
        except BaseException as exc:
            step, value = run.throw, exc


@coroutine
def _to_task() -> Generator[Any, Any, None]:
    yield _IN_TASK


async def in_task() -> None:
    """Go on in a task of asyncio's own, in the next turn of the loop; does nothing where there is one."""
    if asyncio.current_task() is None:
        await _to_task()
