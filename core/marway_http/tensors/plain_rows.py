"""Rows that say nothing of tensors, for a server that takes tensors: made such by what it says of the model, and back.

A row is one example: where an input has a dimension of rows, the row's value is the one row of it, and the outputs lose
that dimension again. A value that has all dimensions is taken as it is, with its own rows.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from marway.answers.encoding import Nonfinite, answer_json
from marway.errors import InvalidRequest, ModelError, clip
from marway.records import Signature, TensorSpec
from marway.wire.envelope import Answer, Row, mime_type
from marway.wire.headers import JSON_NONFINITE
from marway_http.tensors.datatypes import Datatype, Value, datatype_of
from marway_http.tensors.rows import JSON, check_names, is_b64
from marway_http.tensors.tensor import Tensor, common_shape, leaves_of, nested

__all__ = ["HEADER_LENGTH", "PlainInputs", "answer_of_outputs", "description_of", "has_tensors", "inputs_of_row"]

HEADER_LENGTH: Final = "inference-header-content-length"
"""The header of a binary request, and of a binary answer, by which both are known."""


class PlainInputs(NamedTuple):
    """The inputs that a row stands for, and whether they have a dimension of rows that it had not."""

    tensors: list[Tensor]
    rows_added: bool


def has_tensors(row: Row) -> bool:
    """Return whether a row's body is an Open Inference request, in JSON or binary: it goes to the server as it is."""
    if not row.is_raw:
        return False
    if HEADER_LENGTH in row.headers:
        return True
    value = row.parts[0].value
    if b'"inputs"' not in value or value.lstrip()[:1] != b"{":
        return False
    try:
        inputs = json.loads(value)["inputs"]
    except (ValueError, KeyError, RecursionError):
        return False
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(each, dict) and {"name", "datatype"} <= each.keys() for each in inputs)
    )


def inputs_of_row(row: Row, signature: Signature) -> PlainInputs:
    """Return the inputs that a row stands for: a text, a JSON value, bytes, or form fields by input name.

    Args:
        row: It.
        signature: What the model takes, by the server's word; a shape of no dimensions is any, or one value.

    Raises:
        InvalidRequest: It has not the model's inputs, or a value is none of its input's datatype and shape.
    """
    if not signature.inputs:
        raise InvalidRequest("the model's server does not say what it takes: send an Open Inference request")
    found = [_input(value, spec) for value, spec in _values(row, signature)]
    tensors = [tensor for tensor, _ in found]
    alone = all(tensor.shape[:1] == (1,) for tensor in tensors if tensor.shape)
    return PlainInputs(tensors, alone and any(added for _, added in found))


def answer_of_outputs(outputs: Sequence[Tensor], row: Row, *, rows_added: bool) -> Answer:
    """Return a plain value: the one output's, or an object of all by name.

    Args:
        outputs: What the server answered.
        row: What it answered to, for what is to become of numbers that JSON has not.
        rows_added: As `inputs_of_row` said: then the outputs' first dimension, of one row, is not given back.

    Raises:
        ModelError: A number is one that JSON has not, and the row does not say what is to become of it.
    """
    values = {tensor.name: _value(tensor, rows_added=rows_added) for tensor in outputs}
    value = next(iter(values.values())) if len(values) == 1 else values
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            return Answer(200, value, "bytes")
        return Answer(200, value, "text")
    nonfinite = cast("Nonfinite", row.headers.get(JSON_NONFINITE, "error"))
    try:
        return Answer(200, answer_json(value, nonfinite=nonfinite), "json", JSON)
    except ValueError as exc:
        raise ModelError(f"the answer cannot be JSON: {exc}; ask for binary tensors over v2") from exc


def description_of(signature: Signature) -> Answer:
    """Return what a model takes and gives, as the gateway asks for it (`marway.wire.headers.DESCRIBE`)."""
    document = {kind: [spec.model_dump() for spec in getattr(signature, kind)] for kind in ("inputs", "outputs")}
    return Answer(200, json.dumps(document).encode(), "json", JSON)


def _values(row: Row, signature: Signature) -> list[tuple[Any, TensorSpec]]:
    """Return the value of each input."""
    names = [spec.name for spec in signature.inputs]
    if not row.is_raw:
        fields = {part.name: _part(bytes(part.value), part.content_type) for part in row.parts}
        check_names(list(fields), signature)
        return [(fields[spec.name], spec) for spec in signature.inputs]
    (part,) = row.parts
    value = _part(bytes(part.value), part.content_type)
    if isinstance(value, dict) and not is_b64(value):
        check_names(list(value), signature)
        return [(value[spec.name], spec) for spec in signature.inputs]
    if len(names) > 1:
        raise InvalidRequest(f"the model has the inputs {', '.join(names)}: give a JSON object, or a form, of them")
    return [(value, signature.inputs[0])]


def _part(data: bytes, content_type: str | None) -> Any:
    """Return what a body or a field holds: what JSON says, a text, or the bytes."""
    kind = mime_type(content_type).lower()
    if kind == JSON or kind.endswith("+json"):
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest(f"the body is no JSON: {clip(str(exc), 200)}") from exc
    return data


def _input(value: Any, spec: TensorSpec) -> tuple[Tensor, bool]:
    """Return a value as an input, and whether the dimension of rows was added to it."""
    where = f"input {spec.name!r}"
    datatype = datatype_of(spec.datatype, where=where)
    if isinstance(value, bytes) and datatype.kind is not bytes:
        try:
            value = json.loads(value)  # a number or a list is JSON, whatever its content type says
        except (ValueError, RecursionError):
            raise InvalidRequest(f"{where} is {datatype.name}: send it as JSON, or a binary request over v2") from None
    shape: tuple[int, ...] = ()
    leaves = [value]
    if isinstance(value, list):
        found = common_shape(value)
        if found is None:
            raise InvalidRequest(f"{where} is no tensor: its lists have not the same lengths everywhere")
        shape, leaves = found, list(leaves_of(value, len(found)))
    shape, added = _fitted(shape, spec.shape, where)
    return Tensor(spec.name, datatype, shape, _elements(leaves, datatype, where)), added


def _elements(leaves: Sequence[Any], datatype: Datatype, where: str) -> list[Value]:
    if datatype.kind is bytes:
        try:
            leaves = [base64.b64decode(each["b64"], validate=True) if is_b64(each) else each for each in leaves]
        except ValueError:
            raise InvalidRequest(f"{where} has an element under b64 that is no base64") from None
    if (index := datatype.refused(leaves)) is not None:
        raise InvalidRequest(
            f"{where} is {datatype.name}; its element {index}, {clip(repr(leaves[index]), 60)}, is none"
        )
    try:
        return [datatype.converted(each) for each in leaves]
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        raise InvalidRequest(f"{where} has an element that is no Unicode text") from None


def _fitted(shape: tuple[int, ...], wanted: tuple[int, ...], where: str) -> tuple[tuple[int, ...], bool]:
    """Return a value's shape as the model takes it, and whether the dimension of rows was added."""
    given, added = shape, False
    if wanted and len(shape) < len(wanted):
        # A lone value is a row of one: [N, 1] is how models often take it.
        one = (1,) if not shape and len(wanted) == 2 and wanted[1] in (-1, 1) else ()
        shape, added = (1, *one, *shape), True
    fits = len(shape) == len(wanted) and all(side in (-1, have) for have, side in zip(shape, wanted, strict=True))
    if wanted and not fits:
        raise InvalidRequest(
            f"{where} has the shape {list(given)}: the model takes {list(wanted)}, where -1 is any number, or one row "
            "of that"
        )
    return shape, added


def _value(tensor: Tensor, *, rows_added: bool) -> Any:
    shape = tensor.shape
    if rows_added and shape[:1] == (1,):
        shape = shape[1:]
    return nested(tensor.values, shape)
