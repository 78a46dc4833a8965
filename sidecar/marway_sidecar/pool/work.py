"""One request's rows on their way through a version's queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from marway.deadline import Deadline
from marway.wire.envelope import Answer, Row

__all__ = ["Work"]


class Work:
    """The rows of one request, which travel together.

    Args:
        rows: At least one, none that streams.
        deadline: When its caller leaves.

    Attributes:
        size_bytes: Of all values.
        future: The answers, in the order of the rows, or why there are none; done too when its caller has left.
        since: When it came, on the monotonic clock.
        started_at: When the model server was given it last; None while it waits.
        alone: Whether each row has to go by itself: one asks for an explanation, or a call that held others went wrong.
        lost: How often the model server did not have the version when it was asked.
    """

    __slots__ = ("alone", "deadline", "future", "lost", "rows", "since", "size_bytes", "started_at")

    def __init__(self, rows: Sequence[Row], deadline: Deadline) -> None:
        self.rows = rows
        self.deadline = deadline
        self.size_bytes = sum(len(part.value) for row in rows for part in row.parts)
        self.future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self.since = time.monotonic()
        self.started_at: float | None = None
        self.alone = any(row.explains for row in rows)  # handlers look at the first row of a call to know
        self.lost = 0

    @property
    def started(self) -> bool:
        """Whether the model server was given it."""
        return self.started_at is not None
