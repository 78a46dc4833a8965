"""Errors that say which version they are about, and that are told to many."""

from __future__ import annotations

import copy
from typing import Protocol, TypeVar

from marway.errors import MarwayError

__all__ = ["about", "without_traceback"]

E = TypeVar("E", bound=MarwayError)


class Named(Protocol):
    """What says which version it is: a record, a status, what a model server knows."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


def about(version: Named, error: E) -> E:
    """Return the error, saying which version it is about."""
    error.model, error.version = version.name, version.version
    return error


def without_traceback(error: MarwayError) -> MarwayError:
    """Return an equal error without its traceback, for another who is to be told: one raised twice grows."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    return fresh
