"""Calls that are made again: those that do no harm then (reads, parts of an upload, removals), and conditional writes.

The trap in these: a conditional write succeeds, its reply is lost, it is sent again, and is refused because of itself.
So each attempt is one request, and whatever comes back but success, the writer looks at what is stored. Sending the
same bytes again on the same condition is safe: at most one of the requests can be done, and all of them say the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from marway.errors import OutcomeUnknown, RegistryUnavailable
from marway.objects.base import ObjectChanged, ObjectMissing
from marway.objects.s3.failures import VENDOR_ERRORS, Kind, explain

__all__ = ["Backoff", "Found", "conditional_write", "patiently"]

T = TypeVar("T")
_WAITS = 6
_GIVE_UP_S = 60.0
"""A conditional write that others contend for may be answered late."""


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
    """Return what ``call``, one request, returns; it is made again while it fails in ways that may pass.

    Several calls may share the waits that are left in a ``backoff``; ``failed`` is called after each failure.

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
            if failure.kind is Kind.DENIED or not backoff.wait():
                raise failure.error from exc


class Found(Enum):
    """What is stored, as a writer sees it who wants to know whether its write was done."""

    MINE = "mine"
    """What was to be written."""
    BEFORE = "before"
    """What the condition asks for: the write was not done, or not yet."""
    OTHER = "other"
    """Something else: another writer was first, or came after."""


def conditional_write(send: Callable[[], object], look: Callable[[], Found], *, key: str, url: str) -> bool:
    """Make a conditional write, each ``send`` one request, and return whether it was done; else its condition fails.

    Raises:
        RegistryUnavailable: It was surely not done.
        OutcomeUnknown: It could not be found out.
    """
    backoff = Backoff(waits=_WAITS, give_up_s=_GIVE_UP_S)
    in_doubt = False
    while True:
        try:
            send()
        except VENDOR_ERRORS as exc:
            failure = explain(exc, url)
            # A condition that fails says that this request did nothing, but not what a proxy sent before it.
            in_doubt |= failure.kind is Kind.IN_DOUBT
            if failure.kind is not Kind.DENIED:
                try:
                    found = look()
                except RegistryUnavailable as unreadable:
                    if not in_doubt:
                        raise
                    raise _unknown(key, url, unreadable) from exc
                if found is not Found.BEFORE:
                    return found is Found.MINE
                if backoff.wait():
                    continue
            if in_doubt:
                raise _unknown(key, url, failure.error) from exc
            raise failure.error from exc
        return True


def _unknown(key: str, url: str, why: RegistryUnavailable) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"it is unknown whether {key} was written to {url}: no reply came, and it cannot be read back ({why.message}); "
        "look before you try again"
    )
