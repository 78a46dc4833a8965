"""Many inputs asked side by side, their answers in order: in threads, or in tasks of asyncio."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

import anyio

from marway.errors import InvalidInput, MarwayError

__all__ = ["OnError", "in_tasks", "in_threads"]

OnError = Literal["raise", "return"]
_MISSING: Final = object()


class _Rows:
    """The inputs, taken by whoever has room, and what became of them."""

    def __init__(self, values: Iterable[object], concurrency: int, on_error: OnError) -> None:
        if concurrency < 1:
            raise InvalidInput(f"concurrency={concurrency}: at least one is asked at a time")
        if on_error not in ("raise", "return"):
            raise InvalidInput(f"on_error={on_error!r}: there are 'raise' and 'return'")
        if isinstance(values, (str, bytes)):
            raise InvalidInput("a batch is a list of inputs: for one, call `predict`, or put it in a list")
        self._values: Iterator[object] = iter(values)
        self._lock = threading.Lock()  # generators cannot be asked by two threads at once
        self._return = on_error == "return"
        self.answers: list[Any] = []
        self.failed: BaseException | None = None

    def take(self) -> tuple[int, object]:
        """Return the next input and its place; `_MISSING` when there is no more, or one has failed."""
        with self._lock:
            value = _MISSING if self.failed is not None else next(self._values, _MISSING)
            if value is not _MISSING:
                self.answers.append(None)
            return len(self.answers) - 1, value

    def fail(self, place: int, error: BaseException) -> None:
        """Note the error that an input, or taking it, ended in: one that may not stand in the list ends the batch."""
        if self._return and isinstance(error, MarwayError):
            self.answers[place] = error
        else:
            with self._lock:
                self.failed = self.failed or error

    def outcome(self) -> list[Any]:
        if self.failed is not None:
            raise self.failed
        return self.answers


def in_threads(
    ask: Callable[[object], Any], values: Iterable[object], *, concurrency: int, on_error: OnError
) -> list[Any]:
    """Return what ``ask`` returns for each value, in order, ``concurrency`` at a time.

    Raises:
        MarwayError: The first failure, unless it is to be returned.
    """
    rows = _Rows(values, concurrency, on_error)

    def work() -> None:
        place = -1
        try:
            while (taken := rows.take())[1] is not _MISSING:
                place, value = taken
                try:
                    rows.answers[place] = ask(value)
                except MarwayError as exc:
                    rows.fail(place, exc)
        except BaseException as exc:
            rows.fail(place, exc)

    with ThreadPoolExecutor(concurrency, thread_name_prefix="marway-batch") as pool:
        try:
            for worker in [pool.submit(work) for _ in range(concurrency)]:
                worker.result()
        except BaseException as exc:  # such as Ctrl-C: the workers end after the rows that they have
            rows.failed = exc
            raise
    return rows.outcome()


async def in_tasks(
    ask: Callable[[object], Awaitable[Any]], values: Iterable[object], *, concurrency: int, on_error: OnError
) -> list[Any]:
    """Return what ``ask`` returns for each value, as `in_threads`; the first failure cancels the others."""
    rows = _Rows(values, concurrency, on_error)

    async def work(scope: anyio.CancelScope) -> None:
        while rows.failed is None:
            place = -1
            try:
                place, value = rows.take()
                if value is _MISSING:
                    return
                rows.answers[place] = await ask(value)
            except Exception as exc:
                rows.fail(place, exc)
        scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(work, group.cancel_scope)
    return rows.outcome()
