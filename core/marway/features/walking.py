"""Which fields a document has: every value in it, under the JMESPath expression that finds it.

`input.age` is a field of an object. A list of at most 32 numbers has a field for each place, `input[0]`, as tables
travel as lists; of any other list all items are values of one field, `input.items[].price`. What is derived has
the name of a function: `length(input.text)`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["Value", "base_of", "number_or_text", "root_of", "values_of"]

Value = float | str | bool | bytes
"""A number, a text, true or false, or bytes; lists are told by their lengths."""

_PLACES_MAX: Final = 32
_ITEMS_MAX: Final = 1000
_DEPTH_MAX: Final = 8
_FIELDS_MAX: Final = 1000
_DERIVED: Final = re.compile(r"(?:length|words|brightness)\((.*)\)", re.DOTALL)
_ROOT: Final = re.compile(r"\b(input|output)\b")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def values_of(name: str, value: Any, weight: float = 1.0) -> Iterator[tuple[str, Value, float]]:
    """Yield each field of a JSON value, one of its values, and the part of the row that this is of the field.

    At most 1,000 items of a list are looked at, evenly spread, 1,000 fields of an object, and 8 levels. `{"b64": "…"}`
    is the bytes that it stands for. Null is no value, nor are numbers that are not finite.

    Args:
        name: What the value is called.
        value: A JSON value, or bytes.
        weight: The part of the row that it is.
    """
    stack: list[tuple[str, Any, float, int]] = [(name, value, weight, 0)]
    while stack:
        name, value, weight, depth = stack.pop()
        if isinstance(value, bool | str | bytes):
            yield name, value, weight
        elif isinstance(value, int | float):
            if (number := _finite(value)) is not None:
                yield name, number, weight
        elif depth >= _DEPTH_MAX:
            continue
        elif isinstance(value, dict):
            if len(value) == 1 and (data := _bytes_of(value)) is not None:
                yield name, data, weight
                continue
            for _, (key, each) in zip(range(_FIELDS_MAX), value.items(), strict=False):
                stack.append((f"{name}.{_quoted(str(key))}", each, weight, depth + 1))
        elif isinstance(value, list | tuple):
            if len(value) <= _PLACES_MAX and all(isinstance(each, int | float) for each in value):
                stack += [(f"{name}[{place}]", each, weight, depth + 1) for place, each in enumerate(value)]
                continue
            yield f"length({name})", float(len(value)), weight
            items = value[:: math.ceil(len(value) / _ITEMS_MAX)]
            stack += [(f"{name}[]", each, weight / len(items), depth + 1) for each in items]


def base_of(feature: str) -> str:
    """Return the field that a feature is derived from: `input.text` for `length(input.text)`; itself for any other."""
    found = _DERIVED.fullmatch(feature)
    return found[1] if found else feature


def root_of(feature: str) -> str | None:
    """Return whether a feature is of the `input` or the `output`: the first of the two words that is in it, or None."""
    found = _ROOT.search(feature)
    return found[1] if found else None


def number_or_text(text: str) -> float | str:
    """Return the number that a text is, of a form or a CSV file, which have no other way to say one; else the text.

    What begins with a needless zero is none: postal codes and ids do.
    """
    if len(text) > 40 or not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    return number if math.isfinite(number) else text


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # of an int
        return None
    return number if math.isfinite(number) else None


def _bytes_of(value: dict[str, Any]) -> bytes | None:
    """Return the bytes of `{"b64": "…"}`, as TensorFlow Serving's requests have them, or None for another object."""
    text = value.get("b64")
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _quoted(key: str) -> str:
    return key if _PLAIN.fullmatch(key) else json.dumps(key, ensure_ascii=False)
