"""What the inputs of a request put into the handler's rows.

An input of shape [N, …] gives row i its `input[i]`. A single input is the row's raw body, several are its named parts,
as fields of a form are. Numbers travel as JSON, which every handler that was written for TorchServe's REST takes; a
BYTES element as itself. What checks a request raises `InvalidRequest`, which says what is wrong and what is wanted.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from marway.errors import InvalidRequest, clip
from marway.records import Signature, TensorSpec
from marway.wire.envelope import KEY, RAW_BODY, ROWS_MAX, Part, Row
from marway_http.tensors.datatypes import Value
from marway_http.tensors.tensor import Tensor, nested

__all__ = [
    "JSON",
    "OCTETS",
    "TEXT",
    "check_inputs",
    "check_names",
    "check_row_count",
    "check_tensor",
    "is_b64",
    "row_of_parts",
    "rows_of",
]

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
OCTETS: Final = "application/octet-stream"
_FORM: Final = "multipart/form-data"


def check_inputs(inputs: Sequence[Tensor], signature: Signature) -> None:
    """Return when ``inputs`` are what the version takes: as its signature says, when it has one, and N rows each."""
    if not inputs:
        raise InvalidRequest("the request has no inputs: give at least one tensor")
    names = [tensor.name for tensor in inputs]
    if len(set(names)) < len(names):
        raise InvalidRequest(f"two inputs have the name {next(each for each in names if names.count(each) > 1)!r}")
    if KEY in names:
        raise InvalidRequest(f"the input name {KEY!r} is kept for Marway: choose another")
    if "" in names:
        raise InvalidRequest("an input has no name")
    if signature.inputs:
        check_names(names, signature)
        specs = {spec.name: spec for spec in signature.inputs}
        for tensor in inputs:
            check_tensor(tensor, specs[tensor.name])
    first = inputs[0]
    for tensor in inputs[1:]:
        if tensor.rows != first.rows:
            raise InvalidRequest(
                f"input {tensor.name!r} has {tensor.rows} rows and input {first.name!r} {first.rows}: the first "
                "dimension is the number of rows, the same for all"
            )
    check_row_count(first.rows)


def check_row_count(count: int) -> None:
    """Return when a request may have so many rows."""
    if not 1 <= count <= ROWS_MAX:
        raise InvalidRequest(f"the request has {count} rows: send 1 to {ROWS_MAX}")


def rows_of(inputs: Sequence[Tensor]) -> list[Row]:
    """Return the rows of inputs that `check_inputs` found right."""
    if len(inputs) == 1:
        (tensor,) = inputs
        return [row_of_parts({RAW_BODY: _part(tensor, index)}) for index in range(tensor.rows)]
    return [
        row_of_parts({tensor.name: _part(tensor, index) for tensor in inputs}, named=True)
        for index in range(inputs[0].rows)
    ]


def row_of_parts(parts: Mapping[str, tuple[bytes, str]], *, named: bool = False) -> Row:
    """Return a row of bytes and content types by name: fields of a form (``named``), or the one raw body."""
    content_type = _FORM if named else parts[RAW_BODY][1]
    values = [Part(name, value, kind) for name, (value, kind) in parts.items()]
    return Row("", values, {"content-type": content_type})


def is_b64(value: Any) -> bool:
    """Return whether a JSON value stands for bytes: `{"b64": "…"}`."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _part(tensor: Tensor, index: int) -> tuple[bytes, str]:
    """Return one row of a tensor as a handler gets it."""
    values = tensor.row(index)
    if tensor.datatype.kind is not bytes:
        return json.dumps(nested(values, tensor.shape[1:]), separators=(",", ":")).encode(), JSON
    if len(values) == 1:
        (value,) = values
        assert isinstance(value, bytes)
        return value, tensor.content_type or (TEXT if _text(value) is not None else OCTETS)
    elements = nested([_in_json(value) for value in values], tensor.shape[1:])
    return json.dumps(elements, ensure_ascii=False, separators=(",", ":")).encode(), JSON


def _in_json(value: Value) -> Any:
    assert isinstance(value, bytes)
    text = _text(value)
    return text if text is not None else {"b64": base64.b64encode(value).decode()}


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def check_names(names: Collection[str], signature: Signature) -> None:
    """Return when a request's inputs are those of a signature, none unknown and none lacking."""
    known = [spec.name for spec in signature.inputs]
    for name in names:
        if name not in known:
            raise InvalidRequest(f"the model has no input {clip(name, 100)!r}: it takes {', '.join(known)}")
    missing = [name for name in known if name not in names]
    if missing:
        raise InvalidRequest(f"the request lacks the input {missing[0]!r}: the model takes {', '.join(known)}")


def check_tensor(tensor: Tensor, spec: TensorSpec) -> None:
    """Return when a tensor has a spec's datatype and shape."""
    if tensor.datatype.name != spec.datatype:
        raise InvalidRequest(f"input {tensor.name!r} is {tensor.datatype.name}: the model takes {spec.datatype}")
    shape, wanted = tensor.shape, spec.shape
    if not wanted:
        return  # the record leaves it open
    # A trailing 1 says nothing: clients give one text as [1], and as [1, 1].
    if len(shape) == len(wanted) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != len(wanted) or any(
        side not in (-1, have) for have, side in zip(shape[1:], wanted[1:], strict=True)
    ):
        raise InvalidRequest(
            f"input {tensor.name!r} has the shape {list(tensor.shape)}: the model takes {list(wanted)}, where the "
            "first dimension is the number of rows and -1 any number"
        )
