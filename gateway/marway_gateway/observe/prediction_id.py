"""Ids of predictions: ULIDs, by which an answer is found again and feedback says what it is about.

A ULID (github.com/ulid/spec) sorts by when it was made: ten digits of milliseconds since 1970, then sixteen of
randomness. Ours use the digits 0 to F alone there, 64 random bits of the 80 that there is room for: any digit of
theirs is one of Crockford's as well, and hexadecimal ones are made many at once in no time.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import Final

__all__ = ["new_prediction_id"]

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BYTES: Final = 8
_AT_ONCE: Final = 256

_fresh: list[str] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh.clear)  # two processes must not give the same ids


def new_prediction_id() -> str:
    """Return a new prediction id, 26 digits and capital letters."""
    try:
        random = _fresh.pop()
    except IndexError:
        # As request ids: a system call each would cost more than all else about an id.
        digits, width = os.urandom(_RANDOM_BYTES * _AT_ONCE).hex().upper(), 2 * _RANDOM_BYTES
        _fresh.extend(digits[start : start + width] for start in range(width, len(digits), width))
        random = digits[:width]
    return _time_digits(int(time.time() * 1000)) + random


@lru_cache(maxsize=2)
def _time_digits(millis: int) -> str:
    return "".join([_DIGITS[millis >> shift & 31] for shift in range(45, -1, -5)])
