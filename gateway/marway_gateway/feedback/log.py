"""Keeps feedback: a call's rows are in the store before it is answered, and calls share files (group commit).

One file is written at a time, and files are begun no closer together than an interval: what comes meanwhile goes into
the next one. A call that comes alone is written at once; many clients, or one that sends call after call, make one file
an interval, whose rows are all there or none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa

from marway.errors import Draining, MarwayError, OutcomeUnknown, Overloaded, Unavailable
from marway.objects import ObjectStore
from marway_gateway.observe.metrics import Metrics
from marway_observations.layout import FEEDBACK, partition
from marway_observations.parquet import encode, file_name, writer_name

__all__ = ["FeedbackLog", "Held"]

_RETRY_AFTER_S: Final = 5.0
_CLOSE_S: Final = 5.0
"""How long closing waits for what nobody was answered yet."""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Held:
    """The bytes that one call has in memory.

    Args:
        log: Whose room they take.
    """

    log: FeedbackLog
    size: int = 0

    def take(self, size: int) -> None:
        """Take room for further bytes.

        Raises:
            Overloaded: Others have it. A call alone is always let in.
        """
        others = self.log.held_bytes - self.size
        if others and self.log.held_bytes + size > self.log.max_bytes:
            raise Overloaded("this gateway has as much feedback in hand as it may: try again", retry_after_s=1.0)
        self.size += size
        self.log.held_bytes += size


@dataclass(slots=True, eq=False)
class _Call:
    rows: pa.Table
    kept: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FeedbackLog:
    """Writes feedback to an object store, as files below `feedback/`.

    Args:
        store: Where to.
        interval_s: Shortest time between the beginnings of two files, in seconds.
        max_bytes: Most bytes of calls that are in hand at a time.
        metrics: Where to count.
        clock: Monotonic seconds.

    Attributes:
        held_bytes: Bytes of calls in hand.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        interval_s: float,
        max_bytes: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._store = store
        self._interval_s = interval_s
        self._metrics = metrics
        self._clock = clock
        self._writer = writer_name()
        self._waiting: list[_Call] = []
        self._came = asyncio.Event()
        self._closing = asyncio.Event()
        self._away = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="marway-feedback")
        self._task = asyncio.create_task(self._run(), name="feedback")

    @contextlib.contextmanager
    def holding(self) -> Iterator[Held]:
        """Give what counts one call's bytes, until it is answered."""
        held = Held(self)
        try:
            yield held
        finally:
            self.held_bytes -= held.size

    async def keep(self, rows: pa.Table) -> None:
        """Return when rows, of the schema of feedback, are in the store.

        Raises:
            Unavailable: The store does not take them now, or did not say whether it did. They can be given again: rows
                that are there twice count as one.
        """
        if self._closing.is_set():
            raise Draining("this gateway is stopping: send the feedback again")
        if not rows.num_rows:
            return
        call = _Call(rows)
        self._waiting.append(call)
        self._came.set()
        await call.kept

    async def aclose(self) -> None:
        """Write what waits, for some seconds at most, and stop; a second call does nothing."""
        self._closing.set()
        self._came.set()
        await asyncio.wait({self._task}, timeout=_CLOSE_S)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._settle(self._waiting, Draining("this gateway is stopping: send the feedback again"))

    async def _run(self) -> None:
        begun = -self._interval_s
        while True:
            await self._came.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), begun + self._interval_s - self._clock())
            self._came.clear()
            calls, self._waiting = self._waiting, []
            if calls:
                begun = self._clock()
                await self._write_all(calls)
            if self._closing.is_set() and not self._waiting:
                return

    async def _write_all(self, calls: Sequence[_Call]) -> None:
        rows = [call.rows for call in calls]
        try:
            with self._metrics.feedback_write.time():
                await asyncio.get_running_loop().run_in_executor(self._thread, self._write, rows)
        except asyncio.CancelledError:
            self._settle(calls, Draining("this gateway is stopping: send the feedback again"))
            raise
        except Exception as exc:
            self._settle(calls, self._trouble(exc))
            return
        if self._away:
            _log.warning("feedback is kept again")
        self._away = False
        self._metrics.feedback_entries.inc(sum(each.num_rows for each in rows))
        self._settle(calls, None)

    def _write(self, rows: Sequence[pa.Table]) -> None:
        """Write one file. Blocks."""
        table = pa.concat_tables(rows).unify_dictionaries().combine_chunks().sort_by("prediction_id")
        key = f"{FEEDBACK}{partition(datetime.now(UTC))}{file_name(self._writer)}"
        self._store.create(key, encode(table))

    def _trouble(self, exc: Exception) -> Unavailable:
        """Return what the calls of a file that was not written are told; say it once until it is over."""
        why = exc.message if isinstance(exc, MarwayError) else f"{type(exc).__name__}: {exc}"
        if not self._away:
            _log.error("feedback cannot be kept: %s", why, exc_info=None if isinstance(exc, MarwayError) else exc)
        self._away = True
        fate = "may not have been kept" if isinstance(exc, OutcomeUnknown) else "was not kept"
        return Unavailable(f"the feedback {fate}, send it again: {why}", retry_after_s=_RETRY_AFTER_S)

    @staticmethod
    def _settle(calls: Sequence[_Call], error: MarwayError | None) -> None:
        for call in calls:
            if call.kept.done():
                continue  # nobody waits any more
            if error is None:
                call.kept.set_result(None)
            else:
                call.kept.set_exception(type(error)(error.message, retry_after_s=error.retry_after_s))
