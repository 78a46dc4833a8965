"""What an error remembers of where it was raised, and that it forgets it."""

from __future__ import annotations

__all__ = ["forget_frames"]


def forget_frames(error: BaseException) -> None:
    """Have an error that was dealt with, and those that it came from, forget where they were raised.

    A future that failed has its error, whose traceback has the frames that waited for the future, and with them all
    that a request had, its body as well: a cycle, which stays until the collector finds it.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += each.__cause__, each.__context__
