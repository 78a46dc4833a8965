"""Calls that may be made again without harm: reads, parts of an upload, removals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from marway.objects.base import ObjectChanged, ObjectMissing
from marway.objects.s3.backoff import Backoff
from marway.objects.s3.failures import VENDOR_ERRORS, Kind, explain

__all__ = ["patiently"]

T = TypeVar("T")


def patiently(call: Callable[[], T], *, key: str, url: str) -> T:
    """Return what ``call`` returns, making it again while it fails in ways that may pass.

    Raises:
        ObjectMissing: There is no such object.
        ObjectChanged: A condition on the object does not hold.
        RegistryUnavailable: The store cannot be reached, or refuses us.
    """
    backoff = Backoff()
    while True:
        try:
            return call()
        except VENDOR_ERRORS as exc:  # noqa: PERF203 - each attempt is what may fail
            failure = explain(exc, url)
            if failure.kind is Kind.MISSING:
                raise ObjectMissing(key) from exc
            if failure.kind is Kind.CONFLICT:
                raise ObjectChanged(key) from exc
            if not failure.may_pass or not backoff.wait():
                raise failure.error from exc
