"""How many versions a server may have at once, where it has such a limit beside that of memory.

Of some servers nobody knows what a version takes in them: then a number is the limit that people can set.
"""

from __future__ import annotations

from collections.abc import Collection

from marway_sidecar.memory.eviction import Eviction, Reservation

__all__ = ["Places"]


class Places:
    """Places for versions.

    Args:
        most: How many there are; None for any number.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most

    def __str__(self) -> str:
        """Return how many there are, for people."""
        return f"places for versions ({self._most})"

    def short(self, reservation: Reservation, charged: Collection[str]) -> int:
        """Return how many versions of those that have a place, by key, would have to go for a reservation."""
        if self._most is None or reservation.record.id in charged:
            return 0
        return max(0, len(charged) + 1 - self._most)

    def make_room(self, reservation: Reservation, eviction: Eviction, short: int, permanent: Collection[str]) -> bool:
        """Have the least recently used versions evicted; True when so many leave, or may once they are idle."""
        missing = short - len(eviction.leaving)
        may_go = sorted(eviction.may_go(reservation.evict, exclude=None), key=lambda candidate: candidate.used_at)
        for candidate in may_go[: max(0, missing)]:
            eviction.send_away(candidate)
        return missing <= len(may_go) or (reservation.evict == "idle" and len(permanent) < (self._most or 0))
