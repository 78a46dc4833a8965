"""A breaker for one version: when its calls keep dying or hanging, callers are told at once for a short while.

::

    closed ──(n failures in a row)──▶ open ──(its time is over)──▶ one call tries
       ▲                               ▲                              │
       └──────────── it ends well ─────┼──────────────────────────────┤
                                       └──────── it fails too ────────┘
"""

from __future__ import annotations

import asyncio
import time

from marway.errors import DeadlineExceeded, Overloaded, RuntimeDown, Unavailable
from marway.records import VersionRecord
from marway_sidecar.backends.base import Busy, NotLoaded, WorkerDied
from marway_sidecar.errors import about

__all__ = ["Breaker"]


class Breaker:
    """Says whether calls may go to a version.

    Args:
        failures: So many failures in a row open it.
        open_s: How long it then stays open, in seconds.
    """

    def __init__(self, *, failures: int, open_s: float) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._until: float | None = None
        self._trying = False
        self.troubled = False
        """Whether a call failed since one ended well: if not, `check`, `left` and a good end change nothing."""

    @property
    def is_open(self) -> bool:
        """Whether calls are being refused, or one is trying how things are."""
        return self._until is not None

    def check(self, record: VersionRecord) -> None:
        """Return when a call may go.

        The first to ask after the time is over is the one that tries: it must report `ended`, `failed` or `left`.

        Raises:
            Unavailable: Calls keep failing.
        """
        if self._until is None:
            return
        wait_s = self._until - time.monotonic()
        if wait_s <= 0:
            if not self._trying:
                self._trying = True
                return
            wait_s = self._open_s
        message = f"calls of {record.name} {record.version} keep dying or hanging, so it is given a pause"
        raise about(record, Unavailable(message, retry_after_s=wait_s))

    def failed(self) -> None:
        """A call killed its worker, found none, or took far longer than calls of this version do."""
        self._failures += 1
        self.troubled, self._trying = True, False
        if self._failures >= self._limit or self._until is not None:
            self._until = time.monotonic() + self._open_s

    def left(self) -> None:
        """A call ended in a way that says nothing."""
        self._trying = False

    def ended(self, error: BaseException | None) -> None:
        """Take in how a call ended: with an error, or without.

        The call's own deadline is longer than its work may take, so one that passed means a worker that hangs.
        """
        if isinstance(error, (asyncio.CancelledError, RuntimeDown, NotLoaded, Busy)):
            self.left()
        elif isinstance(error, (WorkerDied, Overloaded, DeadlineExceeded)):
            self.failed()
        else:
            self._failures, self._until = 0, None
            self.troubled = self._trying = False  # also with the handler's own error
