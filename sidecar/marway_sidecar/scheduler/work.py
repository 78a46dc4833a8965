"""One request's rows on their way through a version's queue."""

from __future__ import annotations

import time
from collections.abc import Sequence

from marway.deadline import Deadline
from marway.wire.envelope import Answer, Row
from marway_http.eager import InlineFuture
from marway_sidecar.api.body_budget import HeldBytes

__all__ = ["CallerLeft", "Work"]


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class Work:
    """The rows of one request, which travel together.

    Args:
        rows: At least one, none that streams.
        deadline: When its caller leaves.
        group: Whose it is: groups take turns in a queue.
        body: Memory that is held for it, and by every call with it.

    Attributes:
        size_bytes: Of all values.
        future: The answers, in the order of the rows, or why there are none; done too when its caller has left.
        since: When it came, on the monotonic clock.
        started_at: When the model server was given it last; None while it waits.
        alone: Whether each row has to go by itself: one asks for an explanation, or a call that held others went wrong.
        lost: How often the model server did not have the version when it was asked.
    """

    __slots__ = ("alone", "body", "deadline", "future", "group", "lost", "rows", "since", "size_bytes", "started_at")

    def __init__(
        self, rows: Sequence[Row], deadline: Deadline, *, group: str = "", body: HeldBytes | None = None
    ) -> None:
        self.rows = rows
        self.deadline = deadline
        self.group = group
        self.body = body
        self.future: InlineFuture[list[Answer]] = InlineFuture()
        self.since = time.monotonic()
        self.started_at: float | None = None
        self.lost = 0
        self.size_bytes = 0
        self.alone = False
        for row in rows:
            for part in row.parts:
                self.size_bytes += len(part.value)
            if row.explains:
                self.alone = True  # handlers look at the first row of a call to know

    @property
    def started(self) -> bool:
        """Whether the model server was given it."""
        return self.started_at is not None

    def abandon(self) -> None:
        """Say that its caller has left: it raises `CallerLeft` to who waits for the answers."""
        if not self.future.done():
            self.future.set_exception(CallerLeft())
