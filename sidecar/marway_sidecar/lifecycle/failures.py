"""Errors that are told to many, or told again later."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Final

from marway.errors import MarwayError, Unavailable
from marway.records import VersionRecord

__all__ = ["Failure", "about", "again", "is_the_versions"]

_BACKOFF_MAX_S: Final = 300.0


def about(record: VersionRecord, error: MarwayError) -> MarwayError:
    """Return the error, saying which version it is about."""
    error.model, error.version = record.name, record.version
    return error


def again(error: MarwayError) -> MarwayError:
    """Return an equal error without its traceback, for another who is to be told: one raised twice grows."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    return fresh


def is_the_versions(error: MarwayError) -> bool:
    """Whether the error says something about the version: a store that is away or a full pod does not."""
    return not isinstance(error, Unavailable)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed load, remembered so that it is not tried with every request.

    Attributes:
        error: Why.
        count: How many failed in a row.
        retry_at: When it may be tried again, on the monotonic clock.
    """

    error: MarwayError
    count: int
    retry_at: float

    @classmethod
    def after(cls, before: Failure | None, error: MarwayError, *, backoff_s: float) -> Failure:
        """Return the failure that follows ``before``: its pause is twice as long, up to 300 s."""
        count = before.count + 1 if before is not None else 1
        pause = min(_BACKOFF_MAX_S, backoff_s * 2 ** min(count - 1, 16))
        return cls(again(error), count, time.monotonic() + pause)

    def wait_s(self) -> float:
        """Return in how many seconds it may be tried again."""
        return max(0.0, self.retry_at - time.monotonic())
