"""How long a fetch may take, and who may call it off."""

from __future__ import annotations

import threading

from marway.deadline import Deadline
from marway.errors import Unavailable

__all__ = ["Waiting"]

_RETRY_AFTER_S = 5.0


class Waiting:
    """One caller's patience: until its deadline, its cancellation, or the store's end.

    Args:
        what: What is waited for, for messages.
        deadline: When to give up; None waits as long as it takes.
        cancel: The caller's own event.
        closing: The store's.
    """

    def __init__(
        self, what: str, deadline: Deadline | None, cancel: threading.Event | None, closing: threading.Event
    ) -> None:
        self._what = what
        self._deadline = deadline
        self._cancel = cancel
        self._closing = closing

    def check(self) -> None:
        """Return while there is patience left.

        Raises:
            Unavailable: There is none.
        """
        if self._closing.is_set() or (self._cancel is not None and self._cancel.is_set()):
            raise Unavailable(f"{self._what} was called off")
        if self._deadline is not None and self._deadline.remaining() <= 0:
            raise Unavailable(f"{self._what} was not done within the deadline", retry_after_s=_RETRY_AFTER_S)

    def pause(self, seconds: float) -> None:
        """Wait so long, or less when called off; a fraction of a second, for only one of the events can be awaited."""
        self.check()
        (self._cancel or self._closing).wait(seconds)
        self.check()
