"""What of an input decides whether a handler has to pad it beside others: its lengths, not its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marway.answers.golden import ExampleInput
from marway_archiver.examples import body_value

__all__ = ["one_shape"]

_SCALAR = None


def one_shape(inputs: Sequence[ExampleInput]) -> bool:
    """Return whether all inputs have the same lengths, and any at all: then no batch of them needs padding."""
    shapes = [_shape(body_value(each)) for each in inputs]
    return bool(shapes) and shapes[0] is not _SCALAR and all(shape == shapes[0] for shape in shapes)


def _shape(value: Any) -> Any:
    """Return the lengths of texts, bytes and lists in ``value``; None where there is none."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, list):
        inner = [_shape(each) for each in value]
        return len(value), inner[0] if inner and all(each == inner[0] for each in inner) else tuple(inner)
    if isinstance(value, dict):
        found = {key: _shape(each) for key, each in value.items()}
        return found if any(each is not _SCALAR for each in found.values()) else _SCALAR
    return _SCALAR
