"""Whether an answer keeps what a consumer relies on, as its contract says it."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

from marway.answers.difference import shown_value, value_difference
from marway.answers.fields import Fields, field_changes
from marway.answers.golden import GoldenAnswer, Tolerance, is_json
from marway.errors import InvalidInput, clip
from marway.protection.contracts import Contract, check_field
from marway.wire.comparison import field_change

__all__ = ["answer_from_body", "broken_by", "check_expected", "expected_answer"]

_LINE_MAX: Final = 300
_WHOLE: Final = ""


def answer_from_body(body: bytes, content_type: str | None, *, status: int = 200) -> GoldenAnswer:
    """Return an answer as a client gets it: JSON, text, or bytes. A body that does not say what it is may be JSON."""
    kind: Any = "bytes"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None:
        kind = "json" if content_type is None or is_json(content_type) else "text"
    return GoldenAnswer.of(status=status, kind=kind, body=body, content_type=content_type)


def expected_answer(data: bytes) -> GoldenAnswer:
    """Return the answer that a consumer gives as a file: JSON where it is that, else text, else bytes."""
    return answer_from_body(data, None)


def check_expected(contract: Contract) -> None:
    """Refuse a contract that no answer could break, or that its own expected answer breaks.

    Raises:
        InvalidInput: A field is no JMESPath, or finds nothing in the expected answer.
    """
    for field in contract.fields:
        check_field(field)
        if _found(field, contract.value) is None:
            raise InvalidInput(
                f"{clip(field, 80)!r} finds nothing in the expected answer {shown_value(contract.value)}: name a field "
                "that it has"
            )


def broken_by(contract: Contract, got: GoldenAnswer) -> str | None:
    """Return how an answer breaks a contract, in one line, or None where it keeps it.

    Fields that the expected answer does not have break nothing: who reads an answer passes over what it does not know.
    """
    if got.status != contract.status:
        why = f" ({clip(' '.join(str(got.value).split()), 120)})" if got.kind in ("error", "text") else ""
        return f"status {contract.status} was expected, {got.status} came{why}"
    value = _read_as(contract.kind, got)
    if value is _NONE:
        return f"{contract.kind} was expected, {got.kind} came: {shown_value(got.value)}"
    try:
        for field in contract.fields or (_WHOLE,):
            expected, came = _found(field, contract.value), _found(field, value)
            broken = _broken(contract, expected, came)
            if broken is not None:
                return clip(f"{field}: {broken}" if field else broken, _LINE_MAX)
    except RecursionError:
        return "the answer is nested too deeply to be compared"
    return None


_NONE: Final = object()


def _read_as(kind: str, got: GoldenAnswer) -> Any:
    """Return the value of an answer where it is of a kind, or can be read so."""
    if got.kind == kind:
        return got.value
    if kind == "json" and got.kind == "text":
        try:
            return json.loads(str(got.value))
        except (ValueError, RecursionError):
            return _NONE
    if kind == "text" and got.kind == "json" and isinstance(got.value, str):
        return got.value
    if kind == "bytes" and got.kind == "text":
        return base64.b64encode(str(got.value).encode()).decode()
    return _NONE


def _broken(contract: Contract, expected: Any, came: Any) -> str | None:
    expected, came = _without_version(expected), _without_version(came)
    if contract.match == "values":
        tolerance = Tolerance(relative=contract.tolerance, absolute=contract.tolerance)
        return value_difference(expected, _known_part(expected, came), tolerance)
    before, after = Fields(), Fields()
    before.add(GoldenAnswer(kind="json", value=expected))
    after.add(GoldenAnswer(kind="json", value=came))
    changes = [field_change(each) for each in field_changes(before, after) if each.change != "added"]
    return "; ".join(changes) or None


def _known_part(expected: Any, came: Any) -> Any:
    """Return a value without the fields that the expected one does not have, however deep."""
    if isinstance(expected, dict) and isinstance(came, dict):
        return {name: _known_part(expected[name], each) for name, each in came.items() if name in expected}
    if isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        return [_known_part(one, other) for one, other in zip(expected, came, strict=True)]
    return came


def _without_version(value: Any) -> Any:
    """Return a response of the Open Inference Protocol without the version that it names: that differs always."""
    if isinstance(value, dict) and {"outputs", "model_version"} <= value.keys():
        return {name: each for name, each in value.items() if name != "model_version"}
    return value


def _found(field: str, value: Any) -> Any:
    if field == _WHOLE:
        return value
    try:
        return jmespath.search(field, value)
    except JMESPathError:  # a function of something else than it takes
        return None
