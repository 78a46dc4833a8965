"""Conditional writes whose reply may be lost: written, refused, or unknown, and never the wrong one of these.

The trap: a conditional write succeeds, its reply is lost, it is sent again, and is refused because of itself. So each
attempt is one request, and whatever comes back but success, the writer looks at what is stored. Sending the same bytes
again on the same condition is safe: at most one of the requests can be done, and all of them say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from marway.errors import OutcomeUnknown, RegistryUnavailable
from marway.objects.s3.failures import VENDOR_ERRORS, Kind, explain
from marway.objects.s3.retries import Backoff

__all__ = ["Found", "settle"]

_WAITS = 6
_GIVE_UP_S = 60.0
"""A conditional write that others contend for may be answered late."""


class Found(Enum):
    """What is stored, as a writer sees it who wants to know whether its write was done."""

    MINE = "mine"
    """What was to be written."""
    BEFORE = "before"
    """What the condition asks for: the write was not done, or not yet."""
    OTHER = "other"
    """Something else: another writer was first, or came after."""


def settle(send: Callable[[], object], look: Callable[[], Found], *, key: str, url: str) -> bool:
    """Make a conditional write and find out whether it was done.

    Args:
        send: One request.
        look: Reads what is stored.
        key: What is written, for messages.
        url: The store's, for messages.

    Returns:
        Whether it was done; if not, the condition does not hold.

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
