"""What an expression of a graph looks at: found by walking JMESPath's own tree of it, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple

import jmespath

__all__ = ["Looks", "looks_of"]


class Looks(NamedTuple):
    """What an expression looks at.

    Attributes:
        nodes: The names in its `nodes.NAME`, in the order of their first.
        request: Whether it looks at `request`.
        problems: Why it can never mean anything, or not one thing; one sentence without a subject each.
    """

    nodes: tuple[str, ...]
    request: bool
    problems: tuple[str, ...]


class _Value(Enum):
    """What a part of an expression is evaluated on, as far as that matters."""

    ROOT = "the whole of what an expression sees"
    NODES = "nodes"
    OTHER = ""


def looks_of(expression: str) -> Looks:
    """Return what a JMESPath expression, which is known to be one, looks at."""
    walk = _Walk()
    walk.whole(jmespath.compile(expression).parsed, _Value.ROOT)
    return Looks(tuple(dict.fromkeys(walk.nodes)), walk.request, tuple(dict.fromkeys(walk.problems)))


class _Walk:
    """One walk; the names of node types are those of `jmespath.ast`."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.request = False
        self.problems: list[str] = []

    def whole(self, tree: Any, on: _Value) -> None:
        """Look at a part whose value is used as it is: that of all nodes together would hang on which are quick."""
        if (found := self.value(tree, on)) is not _Value.OTHER:
            name = "nodes" if found is _Value.NODES else "@"
            self.problems.append(f"takes `{name}` as a whole: name the node that is meant, nodes.NAME, or request")

    def value(self, tree: Any, on: _Value) -> _Value:
        """Return what a part gives where it is evaluated on ``on``."""
        kind, children = tree["type"], tree.get("children", ())
        if kind == "field":
            return self._field(tree["value"], on)
        if kind in ("identity", "current"):
            return on
        if kind in ("subexpression", "pipe", "index_expression"):
            for child in children:
                on = self.value(child, on)
            return on
        if kind in ("projection", "value_projection", "filter_projection", "flatten"):
            # The first part is what is gone through, and all others see its elements.
            self.whole(children[0], on)
            self._all(children[1:], _Value.OTHER)
        elif kind == "expref":
            self._all(children, _Value.OTHER)  # called on elements
        elif kind in ("index", "slice"):
            if on is not _Value.OTHER:
                self.problems.append("takes an element by number where there is an object: it is always null")
        elif kind == "not_expression":
            if self.value(children[0], on) is not _Value.OTHER:
                self.problems.append("has `!a.b`, which JMESPath reads as `(!a).b`: write `!(a.b)`")
        elif kind != "literal":
            self._all(children, on)  # functions, comparisons, and, or, lists and objects
        return _Value.OTHER

    def _all(self, children: Iterable[Any], on: _Value) -> None:
        for child in children:
            self.whole(child, on)

    def _field(self, name: str, on: _Value) -> _Value:
        if on is _Value.ROOT:
            if name == "nodes":
                return _Value.NODES
            if name == "request":
                self.request = True
            else:
                self.problems.append(f"names {name!r}, and there are `request` and `nodes` alone")
        elif on is _Value.NODES:
            self.nodes.append(name)
        return _Value.OTHER
