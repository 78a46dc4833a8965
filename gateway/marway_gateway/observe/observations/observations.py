"""Keeps what was predicted: `add` at the end of each prediction, and a thread that writes it down.

Rows wait in memory, at most so many and so large, until a file of their model is due; then a round of files is brought
to the store. While one is under way, rows gather for the next. Where a store is away or slow, the oldest rows that wait
are given up for new ones. Whatever happens here, predictions do not notice.
"""

from __future__ import annotations

import logging
import threading
import time
from itertools import groupby
from operator import itemgetter
from typing import Final

import pyarrow as pa

from marway.objects import ObjectStore
from marway_gateway.observe.bodies import settle_bodies
from marway_gateway.observe.metrics import Metrics
from marway_gateway.observe.observations.columns import ModelRows
from marway_gateway.observe.observations.limits import Limits
from marway_gateway.observe.observations.readable import is_open_inference, readable
from marway_gateway.observe.observations.redacting import redacted
from marway_gateway.observe.observations.rounds import Round, Trouble
from marway_gateway.observe.observations.rows import ROW, ROW_BYTES, Row, row_of
from marway_gateway.observe.telemetry import RequestInfo
from marway_observations.parquet import writer_name

__all__ = ["Observations"]

_GATHER_ROWS: Final = 1024
"""Rows from which on they are made columns, which take a fraction of the memory, without waiting for more."""
_GATHER_S: Final = 1.0
_AWAITED_S: Final = 0.5
"""How old rows are that a rollout goes by when they are due: it is over in minutes, and looked at every few seconds. As
the thread turns once a second, they are on their way to the store within two."""
_ROOM: Final = 7 / 8
"""How full the buffer is left where rows are given up: new ones find a place while the thread is about it."""
_CPU_PART: Final = 0.1
"""The part of a processor that writing files may take: with very many models in use they are written less often."""
_CLOSE_S: Final = 5.0
_MODEL, _REDACT, _SIZE = ROW.index("model"), ROW.index("redact"), ROW.index("size")
_log = logging.getLogger(__name__)


class Observations:
    """Writes observations of predictions to a store.

    Args:
        store: Where to.
        metrics: Where to count.
        limits: When files are written, and how much may wait.
    """

    def __init__(self, store: ObjectStore, metrics: Metrics, limits: Limits | None = None) -> None:
        self._store = store
        self._metrics = metrics
        self._limits = limits or Limits()
        self._writer = writer_name()
        self._trouble = Trouble(store.url)
        self._new: list[Row] = []
        self._waiting: dict[str, ModelRows] = {}
        self._round: Round | None = None
        self._not_before = 0.0
        # Counted up on either side, so that no two threads change one number.
        self._added_rows = self._added_bytes = 0
        self._done_rows = self._done_bytes = 0
        self._done = threading.Lock()
        self._some, self._turn = threading.Event(), threading.Event()
        self._closing = False
        self._oldest: float | None = None
        metrics.observations_oldest.set_function(self._oldest_s)
        metrics.observations_waiting.set_function(lambda: self._added_rows - self._done_rows)
        # Arrow's own allocator gives memory back between two files, and has the kernel clear pages of 2 MiB for each:
        # that cost four times what the file did.
        pa.set_memory_pool(pa.system_memory_pool())
        self._thread = threading.Thread(target=self._run, name="observations", daemon=True)
        self._thread.start()

    def add(self, info: RequestInfo, duration_s: float) -> None:
        """Take in a prediction that ended, or count it as dropped; from the event loop's thread alone.

        Args:
            info: What is known of it; `observe` is not off, and it was resolved to a version.
            duration_s: How long it took, in seconds.
        """
        limits, size = self._limits, ROW_BYTES
        if info.observe == "bodies":
            size += settle_bodies(info, limits.body_bytes)
        if (
            self._added_rows - self._done_rows >= limits.buffer_rows
            or self._added_bytes - self._done_bytes + size > limits.buffer_bytes
        ):
            self._metrics.observations_dropped.labels("buffer_full").inc()
            return
        self._added_rows += 1
        self._added_bytes += size
        new = self._new
        new.append(row_of(info, duration_s, size))
        if len(new) == 1:
            self._some.set()
        elif len(new) == _GATHER_ROWS:
            self._turn.set()

    def close(self) -> None:
        """Write what waits and end the thread, as far as that takes 5 s at most; a second call does nothing."""
        self._closing = True
        self._turn.set()
        self._some.set()
        self._thread.join(_CLOSE_S)
        left = self._added_rows - self._done_rows
        if left:
            self._metrics.observations_dropped.labels("shutdown").inc(left)
            self._is_done(left, 0)
            _log.warning("%d observations were not written before the end: %s did not take them", left, self._store.url)

    def _run(self) -> None:
        while not self._closing:
            if not (self._new or self._waiting or self._round):
                self._some.wait()
            self._turn.wait(min(_GATHER_S, self._limits.flush_s / 4))
            self._turn.clear()
            self._some.clear()
            try:
                self._work()
            except Exception:  # a mistake of ours must neither end the thread nor go unseen
                _log.exception("observations: a turn failed")
        ends_at = time.monotonic() + _CLOSE_S
        while (self._new or self._waiting or self._round) and time.monotonic() < ends_at:
            self._work()
            if self._round is not None:
                self._round.give_up()
                self._turn.wait(0.1)
                self._turn.clear()

    def _work(self) -> None:
        """Take in what came, give up what is too much, and begin a round if one is due."""
        self._take()
        if self._round is not None and self._round.over:
            self._not_before = time.monotonic() + self._round.cpu_s / _CPU_PART
            self._round = None
        if self._round is None and (self._closing or time.monotonic() >= self._not_before):
            self._begin()
        self._make_room()  # after that: what is written now need not be given up
        since = [rows.since for rows in self._waiting.values()]
        if self._round is not None:
            since.append(self._round.since)
        self._oldest = min(since, default=None)

    def _take(self) -> None:
        count = len(self._new)
        rows = self._new[:count]
        del self._new[:count]  # the event loop may have added some since
        self._make_readable(rows)
        rows = [redacted(row) if row[_REDACT] else row for row in rows]
        if len({row[_MODEL] for row in rows}) > 1:
            rows.sort(key=itemgetter(_MODEL))
        for model, its in groupby(rows, itemgetter(_MODEL)):
            waiting = self._waiting.get(model)
            if waiting is None:
                waiting = self._waiting[model] = ModelRows(model)
            waiting.add(list(its))

    def _make_readable(self, rows: list[Row]) -> None:
        grown = 0
        for place, row in enumerate(rows):
            if is_open_inference(row):
                rows[place] = made = readable(row)
                grown += made[_SIZE] - row[_SIZE]
        if grown:
            self._is_done(0, -grown)

    def _make_room(self) -> None:
        limits, dropped = self._limits, 0
        while self._waiting and (
            self._added_rows - self._done_rows > limits.buffer_rows * _ROOM
            or self._added_bytes - self._done_bytes > limits.buffer_bytes * _ROOM
        ):
            oldest = min(self._waiting.values(), key=lambda rows: rows.since)
            rows, size = oldest.drop_oldest()
            if not oldest.rows:
                del self._waiting[oldest.model]
            self._is_done(rows, size)
            dropped += rows
        if dropped:
            self._metrics.observations_dropped.labels("store" if self._trouble.there else "buffer_full").inc(dropped)

    def _begin(self) -> None:
        """Begin a round with the models whose files are due."""
        limits, now = self._limits, time.monotonic()
        old_enough_s = limits.flush_s - min(_GATHER_S, limits.flush_s / 4)
        awaited_s = min(old_enough_s, _AWAITED_S)
        due = [
            rows
            for rows in self._waiting.values()
            if self._closing
            or now - rows.begun >= (awaited_s if rows.awaited else old_enough_s)
            or rows.rows >= min(limits.flush_rows, limits.buffer_rows // 2)
            or rows.size >= min(limits.flush_bytes, limits.buffer_bytes // 2)
        ]
        if not due:
            return
        for rows in due:
            del self._waiting[rows.model]
        self._round = Round(
            self._store, self._writer, due, outcome=self._ended, trouble=self._trouble, ended=self._turn.set
        )

    def _ended(self, rows: int, size: int, dropped: str | None) -> None:
        self._is_done(rows, size)
        if dropped is None:
            self._metrics.observations_written.inc(rows)
        else:
            self._metrics.observations_dropped.labels(dropped).inc(rows)

    def _is_done(self, rows: int, size: int) -> None:
        with self._done:
            self._done_rows += rows
            self._done_bytes += size

    def _oldest_s(self) -> float:
        oldest = self._oldest
        return max(0.0, time.time() - oldest) if oldest is not None else 0.0
