"""Classify and regress requests and answers of the v1 protocol, as TensorFlow Serving's REST API has them.

`{"examples": [{feature: value}, …], "context": {feature: value}}` is a list of rows: each example with the context's
features goes to the handler as an object of a predict request does. Both answer with `results`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from marway.errors import InvalidRequest, ModelError, clip
from marway.records import Signature, VersionRecord
from marway.wire.envelope import Row
from marway_gateway.tensors.rows import JSON, Rendered
from marway_gateway.tensors.tensor import json_object
from marway_gateway.tensors.v1_instances import check_signature_name, rows_of_instances

__all__ = ["Verb", "parse_examples", "render_results"]

Verb = Literal["classify", "regress"]
_LABELS: Final = ("label", "class")
_SCORES: Final = ("score", "probability")


def parse_examples(body: bytes, signature: Signature) -> list[Row]:
    """Return the rows that a body holds.

    Args:
        body: All of it.
        signature: What the version takes.

    Raises:
        InvalidRequest: It is no classify or regress request, or none that the version takes.
    """
    document = json_object(body, nonfinite=True)
    check_signature_name(document)
    examples, context = document.get("examples"), document.get("context")
    if not isinstance(examples, list) or not all(isinstance(each, dict) for each in examples):
        raise InvalidRequest('the request has no examples: give {"examples": [{"feature": value}, ...]}')
    if context is None:
        context = {}
    if not isinstance(context, dict):
        raise InvalidRequest("context is no object")
    for index, each in enumerate(examples):
        both = context.keys() & each.keys()
        if both:
            feature = clip(min(both), 60)
            raise InvalidRequest(f"example {index} has the feature {feature!r}, which is in the context too")
    return rows_of_instances([{**context, **each} for each in examples], signature)


def render_results(verb: Verb, record: VersionRecord, values: Sequence[Any]) -> Rendered:
    """Return the answer to a request.

    Args:
        verb: What was asked.
        record: The version that answered.
        values: What the handler answered to each row.

    Raises:
        ModelError: An answer is no classification, or no regression.
    """
    results = []
    for index, value in enumerate(values):
        found = _pairs(value) if verb == "classify" else _number(value)
        if found is None:
            wanted = (
                "no classification: a list of pairs of label and score, an object with `label` and `score`, or one "
                "with the outputs `classes` and `scores`"
                if verb == "classify"
                else "no regression: a number, alone, in a list or as an object's one value"
            )
            raise ModelError(
                f"row {index}: the handler's answer is {wanted}; ask with :predict",
                model=record.name,
                version=record.version,
            )
        results.append(found)
    return json.dumps({"results": results}).encode(), [("content-type", JSON)]


def _pairs(value: Any) -> list[list[Any]] | None:
    """Return the pairs of label and score that a handler's answer is."""
    if isinstance(value, dict):
        labels, scores = value.get("classes"), value.get("scores")
        if isinstance(labels, list) and isinstance(scores, list) and len(labels) == len(scores):
            return _pairs([list(pair) for pair in zip(labels, scores, strict=True)])
        pair = _pair(value)
        return [pair] if pair is not None else None
    if not isinstance(value, list):
        return None
    pairs = [_pair(each) for each in value]
    return None if None in pairs else [pair for pair in pairs if pair is not None]


def _pair(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        label = next((value[name] for name in _LABELS if name in value), None)
        score = next((value[name] for name in _SCORES if name in value), None)
    elif isinstance(value, list) and len(value) == 2:
        label, score = value
    else:
        return None
    if isinstance(label, bool) or not isinstance(label, str | int) or not _is_number(score):
        return None
    return [str(label), score]


def _number(value: Any) -> float | None:
    """Return the number that a handler's answer is."""
    while isinstance(value, list | dict) and len(value) == 1:
        (value,) = value.values() if isinstance(value, dict) else value
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
