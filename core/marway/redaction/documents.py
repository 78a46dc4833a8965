"""Takes fields out of documents that came from JSON; what cannot be looked into is taken out whole."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

__all__ = ["Paths", "Step", "names_of", "redacted"]

Step = tuple[Literal["field", "index", "slice", "flatten", "each", "values", "filter"], Any]
"""One step down a document: into a field, an element, several; `filter` has the function that says which."""
Paths = Sequence[tuple[Step, ...]]

_GONE = object()


def names_of(paths: Paths) -> frozenset[str]:
    """Return the names of fields that paths end in."""
    return frozenset(steps[-1][1] for steps in paths if steps[-1][0] == "field")


def redacted(document: Any, paths: Paths) -> Any:
    """Return a document without what paths lead to, wherever in it they begin; it is changed on the way.

    Raises:
        RecursionError: It is nested too deeply to be looked through.
    """
    if isinstance(document, dict):
        _tensor(document, paths)
        for steps in paths:
            _take_out(document, steps)
        for name, value in document.items():
            document[name] = _in_base64(value, paths) if name == "b64" else redacted(value, paths)
    elif isinstance(document, list):
        for steps in paths:
            _take_out(document, steps)
        for place, value in enumerate(document):
            document[place] = redacted(value, paths)
    elif isinstance(document, str):
        return _in_text(document, paths)
    return document


def _tensor(document: dict[str, Any], paths: Paths) -> None:
    """Take out the data of an Open Inference tensor: its name is what other protocols have as a field's."""
    name = document.get("name")
    if not isinstance(name, str):
        return
    for key in ("data", "contents"):
        if key in document:
            seen = {name: document[key]}
            for steps in paths:
                _take_out(seen, steps)
            document[key] = seen.get(name)


def _in_text(text: str, paths: Paths) -> str:
    """Return a text, where it is a JSON document as one without what is taken out."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        document = json.loads(text)
    except ValueError:
        return text  # of some other kind
    return json.dumps(redacted(document, paths), ensure_ascii=False)


def _in_base64(value: Any, paths: Paths) -> Any:
    """Return what a `b64` holds, where it is a JSON document; anything else in it nobody can look into."""
    if not isinstance(value, str):
        return redacted(value, paths)
    try:
        document = json.loads(base64.b64decode(value))
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(json.dumps(redacted(document, paths)).encode()).decode()


def _take_out(node: Any, steps: tuple[Step, ...]) -> None:
    """Take out what steps lead to from ``node`` on. Elements that are named by their place become null."""
    (kind, what), rest = steps[0], steps[1:]
    if kind in ("field", "values"):
        if isinstance(node, dict):
            for name in [what] if kind == "field" else list(node):
                if name in node and _gone(node, name, rest):
                    del node[name]
        return
    if not isinstance(node, list):
        return
    gone = {place for place in _places(node, kind, what) if _gone(node, place, rest, flat=kind == "flatten")}
    if kind in ("each", "flatten", "filter"):
        node[:] = [value for place, value in enumerate(node) if place not in gone]
    else:
        for place in gone:
            node[place] = None


def _places(node: list[Any], kind: str, what: Any) -> Sequence[int]:
    if kind == "index":
        place = what if what >= 0 else len(node) + what
        return [place] if 0 <= place < len(node) else []
    if kind == "slice":
        places: range = range(len(node))[what]
        return places
    if kind == "filter":
        holds: Callable[[object], bool] = what
        return [place for place, value in enumerate(node) if holds(value)]
    return range(len(node))


def _gone(node: Any, key: Any, rest: tuple[Step, ...], *, flat: bool = False) -> bool:
    """Return whether what is there is to be taken out as a whole; what is below it is taken out here."""
    if not rest:
        return True
    value = node[key]
    if isinstance(value, str):  # JSON within a text
        node[key] = _below_text(value, rest)
    elif flat and isinstance(value, list):
        for element in value:
            _take_out(element, rest)
    else:
        _take_out(value, rest)
    return False


def _below_text(text: str, rest: tuple[Step, ...]) -> str:
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        document = json.loads(text)
    except ValueError:
        return text
    _take_out(document, rest)
    return json.dumps(document, ensure_ascii=False)
