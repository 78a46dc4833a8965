"""Finds the handler of a path whose first segment is fixed, in one look-up and a few comparisons.

The routes that carry predictions are found here before a web framework's router, which tries one pattern after the
other and wraps each call in its own machinery: that costs more than all that a gateway does itself.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

__all__ = ["SegmentRoutes"]

T = TypeVar("T")

_SEGMENTS_MAX: Final = 8
_SEGMENT: Final = re.compile(r"(?:\{([A-Za-z_]\w*)\})?([^{}]*)")
"""A parameter, text, or a parameter and the text behind it, as in `{model}:predict`."""


class SegmentRoutes(Generic[T]):
    """Handlers by method, first segment and number of segments; of several that match, the first that was added."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str, int], list[tuple[T, tuple[tuple[str, str], ...]]]] = {}

    def add(self, method: str, template: str, handler: T) -> bool:
        """Add a route such as `/predict/{model}` or `/v2/models/{model}/infer`; return whether it can be found here."""
        first, *others = template.removeprefix("/").split("/")
        found = [_SEGMENT.fullmatch(other) for other in others]
        if "{" in first or not 1 <= len(others) < _SEGMENTS_MAX or None in found:
            return False
        segments = tuple((each[1] or "", each[2]) for each in found if each is not None)
        self._routes.setdefault((method, first, len(others)), []).append((handler, segments))
        return True

    def find(self, method: str, path: str) -> tuple[T, dict[str, str]] | None:
        """Return the handler of a percent-decoded path, and its parameters; None when there is none."""
        if not path.startswith("/"):
            return None
        first, *values = path[1:].split("/", _SEGMENTS_MAX)
        for handler, segments in self._routes.get((method, first, len(values)), ()):
            named: dict[str, str] = {}
            for (name, text), value in zip(segments, values, strict=True):
                given = value.removesuffix(text) if name else ""
                if given + text != value or bool(given) != bool(name):
                    break
                if name:
                    named[name] = given
            else:
                return handler, named
        return None
