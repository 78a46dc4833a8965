"""Finds the handler of a path whose first segment is fixed and whose others are parameters, in one look-up.

The routes that carry predictions are found here before a web framework's router, which tries one pattern after the
other and wraps each call in its own machinery: that costs more than all that a gateway does itself.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

__all__ = ["SegmentRoutes"]

T = TypeVar("T")

_SEGMENTS_MAX: Final = 8


class SegmentRoutes(Generic[T]):
    """Handlers by method, first segment and number of segments."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str, int], tuple[T, tuple[str, ...]]] = {}

    def add(self, method: str, template: str, handler: T) -> bool:
        """Add a route such as `/predict/{model}/{selector}`; return whether it is of the kind that is found here."""
        first, *others = template.removeprefix("/").split("/")
        plain = "{" not in first
        names = tuple(other[1:-1] for other in others if other.startswith("{") and other.endswith("}"))
        if not (plain and others and len(names) == len(others) and all(name.isidentifier() for name in names)):
            return False
        self._routes[method, first, len(names)] = handler, names
        return True

    def find(self, method: str, path: str) -> tuple[T, dict[str, str]] | None:
        """Return the handler of a percent-decoded path, and its parameters; None when there is none."""
        if not path.startswith("/"):
            return None
        first, *values = path[1:].split("/", _SEGMENTS_MAX)
        route = self._routes.get((method, first, len(values)))
        if route is None or not all(values):
            return None
        handler, names = route
        return handler, dict(zip(names, values, strict=True))
