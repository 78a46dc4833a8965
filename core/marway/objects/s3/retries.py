"""Calls that may be made again without harm (reads, parts of an upload, removals), and the waits between attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from marway.objects.base import ObjectChanged, ObjectMissing
from marway.objects.s3.failures import VENDOR_ERRORS, Kind, explain

__all__ = ["Backoff", "patiently"]

T = TypeVar("T")


class Backoff:
    """A few waits, each of a random length up to a limit that doubles: many who failed together do not meet again.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Args:
        waits: How many there are.
        base_s: Limit of the first.
        max_s: Limit of any.
        give_up_s: No wait begins later than this: attempts that time out are slow enough by themselves.
    """

    def __init__(self, *, waits: int = 5, base_s: float = 0.1, max_s: float = 3.0, give_up_s: float = 20.0) -> None:
        self._left = waits
        self._limit = base_s
        self._max = max_s
        self._last = time.monotonic() + give_up_s

    def wait(self) -> bool:
        """Wait, or return False at once when there have been enough attempts."""
        if self._left == 0 or time.monotonic() > self._last:
            return False
        self._left -= 1
        time.sleep(random.uniform(0, self._limit))  # full jitter: those who failed together must not come back so
        self._limit = min(self._max, self._limit * 2)
        return True


def patiently(
    call: Callable[[], T],
    *,
    key: str,
    url: str,
    backoff: Backoff | None = None,
    failed: Callable[[], object] = lambda: None,
) -> T:
    """Return what ``call`` returns, making it again while it fails in ways that may pass.

    Args:
        call: One request.
        key: The object's, for messages.
        url: The store's, for messages.
        backoff: The waits that are left, where several calls share them.
        failed: Called after each failure.

    Raises:
        ObjectMissing: There is no such object.
        ObjectChanged: A condition on the object does not hold.
        RegistryUnavailable: The store cannot be reached, or refuses us.
    """
    backoff = backoff or Backoff()
    while True:
        try:
            return call()
        except VENDOR_ERRORS as exc:  # noqa: PERF203 - each attempt is what may fail
            failed()
            failure = explain(exc, url)
            if failure.kind is Kind.MISSING:
                raise ObjectMissing(key) from exc
            if failure.kind is Kind.CONFLICT:
                raise ObjectChanged(key) from exc
            if not failure.may_pass or not backoff.wait():
                raise failure.error from exc
