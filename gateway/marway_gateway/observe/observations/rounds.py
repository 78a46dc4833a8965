"""A round of writing: the rows of some models, each a file or two, brought to the store by a few threads."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from marway.errors import MarwayError, clip
from marway.objects import ObjectExists, ObjectStore
from marway_gateway.observe.observations.columns import ModelRows
from marway_observations.parquet import encode, file_name

__all__ = ["Outcome", "Round", "Trouble"]

_THREADS: Final = 4
"""Files on their way to the store at once: one that is far away takes a moment for each."""
_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 5.0
_log = logging.getLogger(__name__)

Outcome = Callable[[int, int, str | None], None]
"""Told of rows that are done with: how many, their size, and why they were dropped, None where they are stored."""


class Trouble:
    """Says in the log once that the store cannot be written, and once that it can again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._since: float | None = None
        self._lock = threading.Lock()

    @property
    def there(self) -> bool:
        """Whether the last write failed."""
        return self._since is not None

    def failed(self, error: Exception) -> None:
        with self._lock:
            began, self._since = self._since, self._since or time.monotonic()
        if began is None:
            _log.warning(
                "observations cannot be written to %s: %s; predictions go on, and what is kept of them waits in memory",
                self._url,
                clip(str(error), 300),
            )

    def written(self) -> None:
        if self._since is None:
            return
        with self._lock:
            began, self._since = self._since, None
        if began is not None:
            _log.warning("observations are written to %s again, after %.0f s", self._url, time.monotonic() - began)


class Round:
    """Writes the rows of some models; every failure of the store is tried again until `give_up`.

    Args:
        store: Where to.
        writer: What names of files begin with.
        work: The rows; nobody else adds to them any more.
        outcome: Told what became of them, from threads of the round.
        trouble: Told how writing goes.
        ended: Called when nothing of it is under way any more.
    """

    def __init__(
        self,
        store: ObjectStore,
        writer: str,
        work: Iterable[ModelRows],
        *,
        outcome: Outcome,
        trouble: Trouble,
        ended: Callable[[], None],
    ) -> None:
        self._store = store
        self._writer = writer
        self._work = deque(work)
        self._outcome = outcome
        self._trouble = trouble
        self._ended = ended
        self._giving_up = threading.Event()
        self._lock = threading.Lock()
        self._running = min(_THREADS, len(self._work))
        self.since = min(rows.since for rows in self._work)
        self.cpu_s = 0.0
        for number in range(self._running):
            # Daemons: a store that answers nobody must not keep the process from ending.
            threading.Thread(target=self._run, name=f"store-observations-{number}", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether nothing of it is under way any more."""
        return self._running == 0

    def give_up(self) -> None:
        """Try what is left once more at most."""
        self._giving_up.set()

    def _run(self) -> None:
        began = time.thread_time()
        try:
            while True:
                try:
                    rows = self._work.popleft()
                except IndexError:
                    return
                self._write(rows)
        finally:
            with self._lock:
                self.cpu_s += time.thread_time() - began
                self._running -= 1
                last = self._running == 0
            if last:
                self._ended()

    def _write(self, rows: ModelRows) -> None:
        left, size = rows.rows, rows.size
        try:
            for prefix, table in rows.tables():
                # The key stays the same for every attempt, so that one whose outcome is unknown makes no second copy.
                if not self._create(prefix + file_name(self._writer), encode(table)):
                    self._outcome(left, size, "store")
                    return
                of_these = size * len(table) // left
                self._outcome(len(table), of_these, None)
                left, size = left - len(table), size - of_these
        except Exception:  # a mistake of ours must neither end the thread nor go unseen
            _log.exception("%d observations of %s could not be made a file", left, rows.model)
            self._outcome(left, size, "failed")

    def _create(self, key: str, data: bytes) -> bool:
        """Return whether a file is in the store, after as many attempts as it takes, or one more after `give_up`."""
        pause_s = _PAUSE_S
        while True:
            last = self._giving_up.is_set()
            try:
                self._store.create(key, data)
            except ObjectExists:
                pass
            except MarwayError as exc:
                self._trouble.failed(exc)
                if last:
                    return False
                self._giving_up.wait(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                continue
            self._trouble.written()
            return True
