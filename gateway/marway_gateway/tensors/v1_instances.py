"""Predict requests and answers of the v1 protocol: TensorFlow Serving's REST API, as KServe speaks it too.

`{"instances": [...]}` is a list of rows; `{"inputs": ...}` the same in columns, or one row without a list. An instance
goes to the handler as if it alone were the body of a request: a string as text, `{"b64": "…"}` as the bytes, anything
else as JSON. An object of the version's named inputs, or one that has bytes among its members, goes as named parts.
Where the version has a signature, each instance is what that says.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from marway.errors import InvalidRequest, clip
from marway.records import Signature, TensorSpec, VersionRecord
from marway.wire.envelope import KEY, RAW_BODY, Row
from marway_gateway.tensors.datatypes import DATATYPES, Datatype
from marway_gateway.tensors.rows import (
    JSON,
    OCTETS,
    TEXT,
    Rendered,
    check_names,
    check_row_count,
    check_tensor,
    row_of_parts,
)
from marway_gateway.tensors.tensor import Tensor, common_shape, json_object, leaves_of

__all__ = [
    "DEFAULT_SIGNATURE",
    "Instances",
    "check_signature_name",
    "parse_instances",
    "render_explanations",
    "render_predictions",
    "rows_of_instances",
]

DEFAULT_SIGNATURE: Final = "serving_default"
"""The one signature that a version has, by the name that TensorFlow gives a model's usual one."""
_B64: Final = "b64"


@dataclass(frozen=True, slots=True)
class Instances:
    """One request.

    Attributes:
        rows: Its rows.
        columnar: Whether they came, and so go back, in columns.
        scalar: Whether the one row came, and so goes back, without a list around it.
    """

    rows: Sequence[Row]
    columnar: bool
    scalar: bool = False


def parse_instances(body: bytes, signature: Signature) -> Instances:
    """Return the rows that a body holds.

    Args:
        body: All of it.
        signature: What the version takes.

    Raises:
        InvalidRequest: It is no predict request.
    """
    document = json_object(body, nonfinite=True)
    check_signature_name(document)
    if ("instances" in document) == ("inputs" in document):
        raise InvalidRequest(
            'the request has no rows: give {"instances": [...]}, or "inputs" for columns, and not both'
        )
    columnar = "inputs" in document
    instances, scalar = _from_columns(document["inputs"]) if columnar else (document["instances"], False)
    if not isinstance(instances, list):
        raise InvalidRequest("instances is no list")
    return Instances(rows_of_instances(instances, signature), columnar, scalar)


def check_signature_name(document: Mapping[str, Any]) -> None:
    """Return when a request means the one signature that a version has.

    Raises:
        InvalidRequest: It names another.
    """
    name = document.get("signature_name")
    if name not in (None, "", DEFAULT_SIGNATURE):
        raise InvalidRequest(
            f"there is no signature {clip(repr(name), 60)}: a model has the one that is meant without a name"
        )


def rows_of_instances(instances: Sequence[Any], signature: Signature) -> list[Row]:
    """Return the rows that instances are.

    Raises:
        InvalidRequest: There are too many, or one is not what the version takes.
    """
    check_row_count(len(instances))
    if signature.inputs:
        for index, instance in enumerate(instances):
            _check_instance(instance, index, signature)
    names = {spec.name for spec in signature.inputs}
    return [_row(instance, index, names) for index, instance in enumerate(instances)]


def render_predictions(request: Instances, record: VersionRecord, values: Sequence[Any]) -> Rendered:
    """Return the answer to a request.

    Args:
        request: The request.
        record: The version that answered.
        values: What the handler answered to each row.
    """
    told = _told(values)
    names = [spec.name for spec in record.signature.outputs]
    named = bool(names) and all(isinstance(value, dict) and value.keys() == set(names) for value in told)
    if named and len(names) == 1:  # "we omit the name", in rows as in columns
        told = [value[names[0]] for value in told]
    document: dict[str, Any] = {"predictions": told}
    if request.columnar:
        outputs: Any = told[0] if request.scalar else told
        if named and len(names) > 1:
            outputs = outputs if request.scalar else {name: [value[name] for value in told] for name in names}
        document = {"outputs": outputs}
    return _json(document)


def render_explanations(values: Sequence[Any]) -> Rendered:
    """Return the answer to a request for explanations, as KServe has it; as `render_predictions`."""
    return _json({"explanations": _told(values)})


def _told(values: Sequence[Any]) -> list[Any]:
    return [{_B64: base64.b64encode(value).decode()} if isinstance(value, bytes) else value for value in values]


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
    if not isinstance(columns, dict) or _is_b64(columns):
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
    if not isinstance(instance, dict) or _is_b64(instance):
        if len(specs) > 1:
            raise InvalidRequest(f"instance {index} is no object: the model takes the inputs {', '.join(specs)}")
        instance = {signature.inputs[0].name: instance}
    check_names(instance, signature)
    for name, value in instance.items():
        _check_value(value, specs[name], f"instance {index}")


def _check_value(value: Any, spec: TensorSpec, where: str) -> None:
    datatype = DATATYPES.get(spec.datatype)
    if datatype is None or _is_b64(_alone(value)):
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
    if datatype.kind == "bytes" and _is_b64(value):
        return True
    if datatype.kind == "float" and isinstance(value, float) and not math.isfinite(value):
        return True
    return datatype.accepts(value)


def _alone(value: Any) -> Any:
    """Return the one element of a list of one, which clients give as they give the element."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _row(instance: Any, index: int, names: set[str]) -> Row:
    if isinstance(instance, dict) and not _is_b64(instance):
        if KEY in instance:
            raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")
        named = bool(names) and instance.keys() == names
        if named and len(names) == 1:
            (instance,) = instance.values()
        elif named or any(_is_b64(value) for value in instance.values()):
            return row_of_parts({name: _part(value, index) for name, value in instance.items()}, named=True)
    return row_of_parts({RAW_BODY: _part(instance, index)})


def _part(value: Any, index: int) -> tuple[bytes, str]:
    if _is_b64(_alone(value)):
        value = _alone(value)
    if _is_b64(value):
        try:
            return base64.b64decode(value[_B64], validate=True), OCTETS
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"instance {index} has a b64 value that is no base64") from None
    if isinstance(value, str):
        try:
            return value.encode(), TEXT
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair
            raise InvalidRequest(f"instance {index} is no Unicode text") from None
    return json.dumps(value, separators=(",", ":")).encode(), JSON


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_B64} and isinstance(value[_B64], str)
