"""What is run beside the usual when there is time: `make test-backends` and `make test-long` set `MARWAY_TEST_LONG`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

__all__ = ["LONG", "usual"]

LONG = bool(os.environ.get("MARWAY_TEST_LONG"))

T = TypeVar("T")


def usual(*each_time: T, more: Iterable[T]) -> list[T]:
    """Return the parameters of a test: those of each time, and ``more`` when there is time."""
    return [*each_time, *(more if LONG else ())]
