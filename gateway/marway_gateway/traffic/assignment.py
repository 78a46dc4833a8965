"""Which side of a divided label a caller is on: the version that the label points at, or the candidate.

A caller's side is a hash of the rollout and of what the caller keeps its side by, compared with the percent. It so
needs no memory and no word between gateways: all of them say the same. Who is with the candidate stays there while the
percent grows, as the hash does not change; and another rollout draws anew, so that nobody is first in every one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from marway.traffic import Traffic

__all__ = ["Assignment", "is_candidates", "sticky_key"]

_SPACE: Final = 1 << 64
_BYTES: Final = 8
_HEADER: Final = "header:"


@dataclass(slots=True)
class Assignment:
    """The side that a request of a divided label was drawn to.

    Attributes:
        traffic: How the label's requests were divided when it came.
        candidate: Whether it was drawn to the candidate; the request's `role` says who answers it.
        counted: Whether its answer says something of the two versions: not where the candidate could not have been
            asked, whichever side was drawn.
        failed: Whether the candidate began on it and was lost, so that the base answered in its place. It counts as the
            candidate's failure, or a candidate that dies of requests would seem to be as good as the base.
    """

    traffic: Traffic
    candidate: bool
    counted: bool = True
    failed: bool = False


def is_candidates(traffic: Traffic, key: str) -> bool:
    """Return whether requests of a caller, given what it keeps its side by, are the candidate's."""
    # A rollout's id before the key, all of one length: as good as a keyed hash, and half of its time.
    digest = blake2b(f"{traffic.rollout}\0{key}".encode(), digest_size=_BYTES).digest()
    # Growing with the percent however floats are rounded; 100 is above every hash, 0 above none.
    return int.from_bytes(digest, "big") < int(traffic.percent * _SPACE / 100)


def sticky_key(sticky: str, *, request_id: str, group_id: str | None, header: Callable[[str], str | None]) -> str:
    """Return what a caller keeps its side by; its request id where it does not say what is asked for.

    Args:
        sticky: What that is: request, group or header:NAME.
        request_id: The request's.
        group_id: The request's, where it has one.
        header: Gives the value of a header by its name in lower case, None where the request has none.
    """
    if sticky == "request":
        return request_id
    given = group_id if sticky == "group" else header(sticky.removeprefix(_HEADER).lower())
    return given or request_id
