"""Requests and answers of the v1 protocol: TensorFlow Serving's REST API, as KServe speaks it too.

`{"instances": [...]}` is a list of rows; `{"inputs": ...}` the same in columns, or one row without a list. An instance
goes to the handler as if it alone were the body of a request: a string as text, `{"b64": "…"}` as the bytes, anything
else as JSON. An object of the version's named inputs, or one that has bytes among its members, goes as named parts.
Where the version has a signature, each instance is what that says.

Classify and regress requests are `{"examples": [{feature: value}, …], "context": {feature: value}}`: each example with
the context's features goes to the handler as an instance does. Both are answered with `results`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from marway.errors import InvalidRequest, ModelError, clip
from marway.records import Signature, TensorSpec, VersionRecord
from marway.resolve.resolved import Resolved
from marway.wire.envelope import KEY, RAW_BODY, Row
from marway_http.tensors.datatypes import DATATYPES, Datatype
from marway_http.tensors.requests import Reading, Rendered
from marway_http.tensors.rows import (
    JSON,
    OCTETS,
    TEXT,
    check_names,
    check_row_count,
    check_tensor,
    is_b64,
    row_of_parts,
)
from marway_http.tensors.tensor import Tensor, common_shape, json_object, leaves_of

__all__ = ["DEFAULT_SIGNATURE", "read_classify", "read_explain", "read_predict", "read_regress"]

DEFAULT_SIGNATURE: Final = "serving_default"
"""The one signature that a version has, by the name that TensorFlow gives a model's usual one."""
_LABELS: Final = ("label", "class")
_SCORES: Final = ("score", "probability")


def read_predict(body: bytes, header_length: str | None, version: Resolved) -> Reading:
    """Read a predict request."""
    document = _document(body)
    columnar = "inputs" in document
    instances, scalar = _instances(document)
    rows = _rows(instances, version.record.signature)
    return Reading(rows, partial(_predictions, version.record, columnar, scalar))


def read_explain(body: bytes, header_length: str | None, version: Resolved) -> Reading:
    """Read a request for explanations: a predict request, answered as KServe has it."""
    instances, _ = _instances(_document(body))
    return Reading(_rows(instances, version.record.signature), _explanations)


def read_classify(body: bytes, header_length: str | None, version: Resolved) -> Reading:
    """Read a classify request."""
    return Reading(_examples(body, version.record.signature), partial(_results, "classify", version.record))


def read_regress(body: bytes, header_length: str | None, version: Resolved) -> Reading:
    """Read a regress request."""
    return Reading(_examples(body, version.record.signature), partial(_results, "regress", version.record))


def _document(body: bytes) -> dict[str, Any]:
    document = json_object(body, nonfinite=True)
    name = document.get("signature_name")
    if name not in (None, "", DEFAULT_SIGNATURE):
        raise InvalidRequest(
            f"there is no signature {clip(repr(name), 60)}: a model has the one that is meant without a name"
        )
    return document


def _instances(document: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Return the instances of a request, and whether they are one that came, and so goes back, with no list around."""
    if ("instances" in document) == ("inputs" in document):
        raise InvalidRequest(
            'the request has no rows: give {"instances": [...]}, or "inputs" for columns, and not both'
        )
    instances, scalar = _from_columns(document["inputs"]) if "inputs" in document else (document["instances"], False)
    if not isinstance(instances, list):
        raise InvalidRequest("instances is no list")
    return instances, scalar


def _examples(body: bytes, signature: Signature) -> list[Row]:
    document = _document(body)
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
    return _rows([{**context, **each} for each in examples], signature)


def _rows(instances: Sequence[Any], signature: Signature) -> list[Row]:
    check_row_count(len(instances))
    if signature.inputs:
        for index, instance in enumerate(instances):
            _check_instance(instance, index, signature)
    names = {spec.name for spec in signature.inputs}
    return [_row(instance, index, names) for index, instance in enumerate(instances)]


def _predictions(record: VersionRecord, columnar: bool, scalar: bool, values: Sequence[Any]) -> Rendered:
    """Return the answer to a predict request, in columns, or without a list around it, as the request came."""
    told = _told(values)
    names = [spec.name for spec in record.signature.outputs]
    named = bool(names) and all(isinstance(value, dict) and value.keys() == set(names) for value in told)
    if named and len(names) == 1:  # "we omit the name", in rows as in columns
        told = [value[names[0]] for value in told]
    document: dict[str, Any] = {"predictions": told}
    if columnar:
        outputs: Any = told[0] if scalar else told
        if named and len(names) > 1:
            outputs = outputs if scalar else {name: [value[name] for value in told] for name in names}
        document = {"outputs": outputs}
    return _json(document)


def _explanations(values: Sequence[Any]) -> Rendered:
    return _json({"explanations": _told(values)})


def _results(verb: Literal["classify", "regress"], record: VersionRecord, values: Sequence[Any]) -> Rendered:
    """Return the answer to a classify or regress request.

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
    return _json({"results": results})


def _told(values: Sequence[Any]) -> list[Any]:
    return [{"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value for value in values]


def _json(document: dict[str, Any]) -> Rendered:
    # With `NaN` and `Infinity`, as TensorFlow Serving's REST API has it ("JSON conformance" in its document).
    return json.dumps(document).encode(), [("content-type", JSON)]


def _from_columns(columns: Any) -> tuple[list[Any], bool]:
    """Return the rows that columns hold, and whether they are one row without a list around it.

    Columns by name, or one column of a single input. TensorFlow's inputs may differ in their first dimension; here that
    is the number of rows.
    """
    if isinstance(columns, list):
        return columns, False
    if not isinstance(columns, dict) or is_b64(columns):
        return [columns], True
    if columns and not any(isinstance(column, list) for column in columns.values()):
        return [columns], True
    lengths = {len(column) if isinstance(column, list) else None for column in columns.values()}
    if len(lengths) != 1 or None in lengths:
        raise InvalidRequest("inputs must hold a list for each input, all of one length: the number of rows")
    (count,) = lengths
    assert count is not None
    return [{name: column[index] for name, column in columns.items()} for index in range(count)], False


def _check_instance(instance: Any, index: int, signature: Signature) -> None:
    """Return when an instance is what the version takes; as `check_inputs`, for values without a shape of their own."""
    specs = {spec.name: spec for spec in signature.inputs}
    if not isinstance(instance, dict) or is_b64(instance):
        if len(specs) > 1:
            raise InvalidRequest(f"instance {index} is no object: the model takes the inputs {', '.join(specs)}")
        instance = {signature.inputs[0].name: instance}
    check_names(instance, signature)
    for name, value in instance.items():
        _check_value(value, specs[name], f"instance {index}")


def _check_value(value: Any, spec: TensorSpec, where: str) -> None:
    datatype = DATATYPES.get(spec.datatype)
    if datatype is None or is_b64(_alone(value)):
        return  # bytes are for the handler to decode: a picture in place of its numbers
    shape = common_shape([value])
    if shape is None:
        raise InvalidRequest(f"{where}: input {spec.name!r} has lists of different lengths")
    try:
        check_tensor(Tensor(spec.name, datatype, shape, ()), spec)
    except InvalidRequest as exc:
        raise InvalidRequest(f"{where}: {exc.message}") from None
    for leaf in leaves_of([value], len(shape)):
        if not _is_element(leaf, datatype):
            shown = clip(json.dumps(leaf), 60)
            raise InvalidRequest(f"{where}: input {spec.name!r} is {datatype.name}, and {shown} is none")


def _is_element(value: Any, datatype: Datatype) -> bool:
    if datatype.kind is bytes and is_b64(value):
        return True
    if datatype.kind is float and isinstance(value, float) and not math.isfinite(value):
        return True
    return datatype.accepts(value)


def _alone(value: Any) -> Any:
    """Return the one element of a list of one, which clients give as they give the element."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _row(instance: Any, index: int, names: set[str]) -> Row:
    if isinstance(instance, dict) and not is_b64(instance):
        if KEY in instance:
            raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")
        named = bool(names) and instance.keys() == names
        if named and len(names) == 1:
            (instance,) = instance.values()
        elif named or any(is_b64(value) for value in instance.values()):
            return row_of_parts({name: _part(value, index) for name, value in instance.items()}, named=True)
    return row_of_parts({RAW_BODY: _part(instance, index)})


def _part(value: Any, index: int) -> tuple[bytes, str]:
    if is_b64(_alone(value)):
        value = _alone(value)
    if is_b64(value):
        try:
            return base64.b64decode(value["b64"], validate=True), OCTETS
        except ValueError:
            raise InvalidRequest(f"instance {index} has a b64 value that is no base64") from None
    if isinstance(value, str):
        try:
            return value.encode(), TEXT
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair
            raise InvalidRequest(f"instance {index} is no Unicode text") from None
    return json.dumps(value, separators=(",", ":")).encode(), JSON


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
