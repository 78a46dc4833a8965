"""Whether two answers of a model are the same, and where they differ; and the golden ones of a version."""

from __future__ import annotations

import json
import math
from typing import Any

from marway.answers.golden import (
    DEFAULT_TOLERANCE,
    GoldenAnswer,
    GoldenDocument,
    Tolerance,
    decode_golden,
    mime_type,
)
from marway.errors import InvalidRecord, NotFound, clip
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.registry import Registry

__all__ = ["difference", "golden_difference", "golden_of", "shown_value", "value_difference"]

_SHOWN = 80
_INCLUSIVE = 1 + 1e-6
"""The bound itself is within the tolerance: numbers rounded to 4 digits may lie 0.0001 apart, and a hair more."""


def difference(expected: GoldenAnswer, got: GoldenAnswer, tolerance: Tolerance = DEFAULT_TOLERANCE) -> str | None:
    """Return how ``got`` differs from ``expected`` in one line, or None.

    Statuses, kinds and content types must be equal, text and bytes too; JSON is compared by its structure, with
    floats within ``tolerance``. Messages of errors may differ: they may hold what changes with each call.
    """
    if expected.status != got.status:
        message = f" ({clip(str(got.value), _SHOWN)})" if got.kind == "error" else ""
        return f"status {expected.status} was expected, {got.status} came{message}"
    if expected.kind != got.kind:
        return f"{expected.kind} was expected, {got.kind} came: {shown_value(got.value)}"
    if mime_type(expected.content_type).lower() != mime_type(got.content_type).lower():
        return f"content type {expected.content_type} was expected, {got.content_type} came"
    if expected.kind == "error":
        return None
    return value_difference(expected.value, got.value, tolerance)


def golden_of(registry: Registry, record: VersionRecord) -> GoldenDocument | None:
    """Return a version's published golden answers, None where it has none. Blocks.

    Raises:
        InvalidRecord: They are gone from the registry, are damaged, or belong to another archive.
        RegistryUnavailable: They cannot be read.
    """
    if record.golden_sha256 is None:
        return None
    where = f"golden/{record.golden_sha256}.json of {record.name} {record.version}"
    try:
        data = registry.golden(record.golden_sha256)
    except (ObjectMissing, NotFound) as exc:
        raise InvalidRecord(f"{where} is not in the registry: publish the version again") from exc
    document = decode_golden(data, source=where)
    if document.archive_sha256 != record.archive.sha256:
        raise InvalidRecord(f"{where} belongs to another archive: publish the version again")
    return document


def golden_difference(
    document: GoldenDocument, index: int, got: GoldenAnswer, *, tolerance: Tolerance | None = None
) -> str | None:
    """Return how ``got`` differs from the golden answer number ``index`` of ``document``, or None.

    Answers that no handler gave know statuses and values only: kind and content type are the server's matter, and so
    are parameters of a response of the Open Inference Protocol that nobody stated.
    """
    expected = document.examples[index].answer
    tolerance = tolerance or document.tolerance
    if document.values_only and expected.status == got.status and got.kind != "error":
        return value_difference(expected.value, _as_stated(expected.value, got.value), tolerance)
    return difference(expected, got, tolerance)


def _as_stated(expected: Any, got: Any) -> Any:
    """Return a response of the Open Inference Protocol without the parameters that ``expected`` does not name."""
    if not (_is_response(expected) and _is_response(got)):
        return got
    outputs = [
        _without_parameters(each, expected["outputs"][place] if place < len(expected["outputs"]) else None)
        for place, each in enumerate(got["outputs"])
    ]
    return _without_parameters({**got, "outputs": outputs}, expected)


def _is_response(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("outputs"), list)


def _without_parameters(got: Any, expected: Any) -> Any:
    if not (isinstance(got, dict) and isinstance(expected, dict)) or "parameters" in expected:
        return got
    return {name: each for name, each in got.items() if name != "parameters"}


def value_difference(expected: Any, got: Any, tolerance: Tolerance = DEFAULT_TOLERANCE) -> str | None:
    """Return where two JSON values differ first, or None.

    Integers stand for labels, tokens and counts, so two of them must be equal; a float may lie within
    ``tolerance`` of another number. NaN equals NaN.
    """
    stack: list[tuple[str, Any, Any]] = [("", expected, got)]  # no recursion: a handler may nest as deep as it likes
    while stack:
        path, left, right = stack.pop()
        at = f"at {clip(path, 200)}: " if path else ""
        if isinstance(left, dict) and isinstance(right, dict):
            for name in left:
                if name not in right:
                    return f"{at}{name!r} was expected and is missing"
            for name in right:
                if name not in left:
                    return f"{at}{clip(repr(name), _SHOWN)} came and was not expected"
            stack += [(_join(path, name), left[name], right[name]) for name in reversed(left)]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return f"{at}{len(left)} items were expected, {len(right)} came"
            stack += [(f"{path}[{i}]", left[i], right[i]) for i in reversed(range(len(left)))]
        elif not _same(left, right, tolerance):
            return f"{at}{shown_value(left)} was expected, {shown_value(right)} came"
    return None


def shown_value(value: Any) -> str:
    """Return a JSON value as one line, cut."""
    try:
        return clip(json.dumps(value, ensure_ascii=False), _SHOWN)
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"


def _join(path: str, name: str) -> str:
    return f"{path}.{clip(name, 40)}" if path else clip(name, 40)


def _same(left: Any, right: Any, tolerance: Tolerance) -> bool:
    if type(left) is type(right) is int or not {type(left), type(right)} <= {int, float}:
        return type(left) is type(right) and bool(left == right)
    try:
        left, right = float(left), float(right)
    except OverflowError:  # an integer that no float can hold
        return bool(left == right)
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return math.isclose(left, right, rel_tol=tolerance.relative, abs_tol=tolerance.absolute * _INCLUSIVE)
