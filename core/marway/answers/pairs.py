"""Two versions' answers to the same request: whether they decide and look the same, and in which fields they differ.

A decision is what a caller acts on. Scores move with every training, labels do not: an answer that names a label, a
class, a whole number or a truth value is compared by these alone, one of scores by which of them is the highest, and
one number by whether it is about the same. Text of more than 200 characters is no label, and decides nothing: two
versions that write never write the same. Nor do fields that tell of the call and not of its input, such as `took_ms`,
`request_id`, `timestamp` and `version`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jmespath
from jmespath.exceptions import JMESPathError

from marway.answers.bodies import document_rows
from marway.answers.comparison import fails, without_version
from marway.answers.difference import difference, shown_value, value_difference
from marway.answers.fields import nonfinite_at
from marway.answers.golden import DEFAULT_TOLERANCE, GoldenAnswer, Tolerance, mime_type
from marway.errors import clip

__all__ = ["Pair", "compare_pair"]

ABOUT_THE_SAME: Final = 0.1
"""By so much of the larger one may two lone numbers differ and still decide the same."""
_FIELDS_MAX: Final = 100
_VALUES_MAX: Final = 100_000
_PATH_MAX: Final = 100
_NUMBERS: Final = (int, float)
_LABEL_MAX: Final = 200
_OF_THE_CALL: Final = re.compile(
    r"(?:(?:model|handler|schema)_?)?version|(?:model|request|prediction|trace|response)_?id|uuid|host(?:name)?|created(?:_?at)?"
    r"|time(?:_?stamp)?|.*(?:latency|elapsed|duration|_took|took_).*|.*_(?:ms|us|ns|seconds|time|at)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What a candidate's answer is beside the base's.

    Attributes:
        failed, base_failed: Whether it is a failure: the handler raised, or set a status of 400 or more.
        nonfinite, base_nonfinite: Where it holds NaN or an infinity first.
        difference: How it differs, in one line, within the tolerance; None where it is the same.
        shape: How its fields or types differ, or its content type; None where they do not, or one side failed.
        decides_otherwise: Whether the decision is another one; also where just one side failed.
        decisions: Both decisions, where they differ, in one line.
        fields: In which fields the answers differ, lists without their places: `items[].label`; scores by class are
            one field, `scores{}`.
    """

    failed: bool
    base_failed: bool
    nonfinite: str | None
    base_nonfinite: str | None
    difference: str | None
    shape: str | None = None
    decides_otherwise: bool = False
    decisions: str | None = None
    fields: tuple[str, ...] = ()


def compare_pair(
    before: GoldenAnswer, after: GoldenAnswer, tolerance: Tolerance = DEFAULT_TOLERANCE, *, decision: str | None = None
) -> Pair:
    """Compare a candidate's answer with the base's to the same request.

    Args:
        before: The base's.
        after: The candidate's.
        tolerance: How far numbers may lie apart and still be the same answer.
        decision: A JMESPath of what decides in an answer, such as a quality rule's `prediction`; None means that it
            is found as the module says.
    """
    before, after = without_version(before), without_version(after)
    failed, base_failed = fails(after), fails(before)
    differs = difference(before, after, tolerance)
    sides = (failed, base_failed, nonfinite_at(after), nonfinite_at(before), differs)
    if failed or base_failed:
        return Pair(*sides, decides_otherwise=failed != base_failed)
    shape = _shape_difference(before, after)
    if differs is None:
        return Pair(*sides, shape=shape)
    try:
        ours, theirs = _decision(before, decision), _decision(after, decision)
        otherwise = not _decides_alike(ours, theirs)
    except RecursionError:  # nested deeper than anybody looks
        return Pair(*sides, shape=shape, decides_otherwise=True, fields=("",))
    decisions = _in_words(ours, theirs) if otherwise else None
    return Pair(*sides, shape, otherwise, decisions, tuple(_fields_between(before, after, tolerance)))


def _in_words(ours: Any, theirs: Any) -> str:
    """Return two decisions in one line, without what they have in common."""
    while isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        names = [name for name in ours if not _decides_alike(ours[name], theirs[name])]
        if len(names) != 1:
            ours, theirs = ({name: each[name] for name in names} for each in (ours, theirs))
            break
        ours, theirs = ours[names[0]], theirs[names[0]]
    return f"{shown_value(ours)} is now {shown_value(theirs)}"


def _rows(answer: GoldenAnswer) -> Any:
    """Return an answer's value by rows: those of the v1 and v2 protocols are taken apart; a lone row is itself."""
    if answer.kind != "json":
        return answer.value
    rows = document_rows(answer.value)
    return rows[0] if len(rows) == 1 else rows


def _decision(answer: GoldenAnswer, path: str | None) -> Any:
    if answer.kind != "json":
        return _label(answer.value) if answer.kind == "text" and isinstance(answer.value, str) else answer.value
    rows = document_rows(answer.value)
    found = [_decides(row).what if path is None else _found(path, row) for row in rows]
    return found[0] if len(found) == 1 else found


def _found(path: str, row: Any) -> Any:
    try:
        return jmespath.search(path, row)
    except JMESPathError:  # a function that does not take such a value
        return None


class _Decides(NamedTuple):
    """What decides in a value, and how surely: 2 what is said outright, 1 the highest score, 0 a number, -1 text."""

    surely: int
    what: Any


def _decides(value: Any) -> _Decides:
    """Return what decides in a value: its texts, truth values and whole numbers; else its highest score, or itself."""
    if isinstance(value, dict):
        if _are_scores(list(value.values())):
            return _Decides(1, max(value, key=lambda name: _score(value[name])))
        inner = {name: _decides(each) for name, each in value.items() if not _OF_THE_CALL.fullmatch(name)}
        surely = max((each.surely for each in inner.values()), default=2)
        return _Decides(surely, {name: each.what for name, each in inner.items() if each.surely == surely})
    if isinstance(value, list):
        if _are_scores(value):
            return _Decides(1, max(range(len(value)), key=lambda place: _score(value[place])))
        if len(value) > 1 and (scores := _scored(value)) is not None:
            best = value[max(range(len(value)), key=lambda place: _score(scores[place]))]
            return _decides({name: each for name, each in best.items() if not isinstance(each, float)})
        items = [_decides(each) for each in value]
        return _Decides(max((each.surely for each in items), default=2), [each.what for each in items])
    if isinstance(value, str):
        label = _label(value)
        return _Decides(2 if label is not None else -1, label)
    return _Decides(0 if isinstance(value, float) else 2, value)


def _label(text: str) -> str | None:
    text = text.strip()
    return text if len(text) <= _LABEL_MAX else None


def _are_scores(values: list[Any]) -> bool:
    """Return whether these are several numbers, not all of them whole."""
    return (
        len(values) > 1
        and all(type(each) in _NUMBERS for each in values)
        and any(isinstance(each, float) for each in values)
    )


def _scored(items: list[Any]) -> list[float] | None:
    """Return the scores of objects that have one number each that is not whole, beside what they stand for."""
    scores = []
    for item in items:
        if not isinstance(item, dict):
            return None
        floats = [each for each in item.values() if type(each) is float]
        if len(floats) != 1 or len(item) < 2:
            return None
        scores.append(floats[0])
    return scores


def _score(value: float) -> float:
    try:
        return -math.inf if math.isnan(value) else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _decides_alike(ours: Any, theirs: Any) -> bool:
    if type(ours) in _NUMBERS and type(theirs) in _NUMBERS and not type(ours) is type(theirs) is int:
        near = Tolerance(relative=ABOUT_THE_SAME, absolute=DEFAULT_TOLERANCE.absolute)
        return value_difference(ours, theirs, near) is None
    if isinstance(ours, dict) and isinstance(theirs, dict):
        # A score that happens to be whole, as some servers write 1.0, is decisive on one side only, and is none.
        alone = [each[name] for each in (ours, theirs) for name in each if (name in ours) != (name in theirs)]
        return all(type(each) in _NUMBERS for each in alone) and all(
            _decides_alike(ours[name], theirs[name]) for name in ours if name in theirs
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_decides_alike, ours, theirs))
    return type(ours) is type(theirs) and bool(ours == theirs)


def _shape_difference(before: GoldenAnswer, after: GoldenAnswer) -> str | None:
    """Return the first field that one of two answers lacks, or whose type is another; null may stand for any."""
    if before.kind != after.kind:
        return f"{before.kind} is now {after.kind}"
    ours, theirs = mime_type(before.content_type).lower(), mime_type(after.content_type).lower()
    if ours != theirs:
        return f"content type {ours or 'none'} is now {theirs or 'none'}"
    if before.kind not in ("json", "tensor"):
        return None
    stack: list[tuple[str, Any, Any]] = [("", before.value, after.value)]
    for _ in range(_VALUES_MAX):
        if not stack:
            break
        path, left, right = stack.pop()
        one, other = _type(left), _type(right)
        if "null" in (one, other):
            continue
        if one != other:
            return f"{path or 'the answer'} was {one} and is {other}"
        if isinstance(left, dict):
            if _are_map(left) and _are_map(right):
                continue
            for name in (*left, *right):
                if (name in left) != (name in right):
                    return f"{_join(path, name)} is {'gone' if name in left else 'new'}"
            if _is_tensor(left) and _is_tensor(right) and left["datatype"] != right["datatype"]:
                return f"{_join(path, 'datatype')} was {left['datatype']} and is {right['datatype']}"
            tensors = _is_tensor(left) and _is_tensor(right)
            stack += [(_join(path, name), left[name], right[name]) for name in left if not (tensors and name == "data")]
        elif isinstance(left, list) and left and right:
            pairs = zip(left, right, strict=True) if len(left) == len(right) else ((left[0], right[0]),)
            stack += [(f"{path}[]", *pair) for pair in pairs]
    return None


def _are_map(value: dict[str, Any]) -> bool:
    """Return whether an object is one of scores by class, whose names are values: versions may know others."""
    return _are_scores(list(value.values()))


def _is_tensor(value: dict[str, Any]) -> bool:
    return isinstance(value.get("datatype"), str) and isinstance(value.get("shape"), list)


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, _NUMBERS):
        return "number"
    return "string" if isinstance(value, str) else "list" if isinstance(value, list) else "object"


def _fields_between(before: GoldenAnswer, after: GoldenAnswer, tolerance: Tolerance) -> Iterator[str]:
    """Yield the fields in which two answers differ, each once; an empty name stands for the answer as a whole."""
    seen: set[str] = set()
    stack: list[tuple[str, Any, Any]] = [("", _rows(before), _rows(after))]
    for _ in range(_VALUES_MAX):
        if not stack or len(seen) >= _FIELDS_MAX:
            return
        path, left, right = stack.pop()
        if path in seen:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            classes = _are_map(left) and _are_map(right) and (path or left.keys() != right.keys())
            if not classes:
                stack += [
                    (_join(path, name), left.get(name), right.get(name)) for name in reversed(list({**left, **right}))
                ]
            elif value_difference(left, right, tolerance) is not None:
                seen.add(path)
                yield f"{path}{{}}"
        elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
            stack += [(f"{path}[]", *each) for each in reversed(list(zip(left, right, strict=True)))]
        elif value_difference(left, right, tolerance) is not None:
            seen.add(path)
            yield path


def _join(path: str, name: str) -> str:
    return clip(f"{path}.{clip(name, 40)}" if path else clip(name, 40), _PATH_MAX)
