"""Rows of any other kind, for servers that take tensors: by what the server says of its inputs, and back.

A text, bytes or a JSON value becomes the tensor of the model's one input; a form, or a JSON object, one tensor for each
input by its name. Where a value has one dimension less than its input, it is a batch of one, and the first dimension
of the answer is taken off again. What makes tensors raises `InvalidRequest`, which says what is wanted.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from marway.errors import InvalidRequest, clip
from marway.records import TensorSpec
from marway.wire.envelope import Answer, Part, Row, mime_type
from marway_http.tensors.datatypes import BYTES, DATATYPES, Datatype, datatype_of
from marway_http.tensors.rows import JSON, OCTETS, is_b64
from marway_http.tensors.tensor import Tensor, common_shape, flat_values, leaves_of, nested, shape_of

__all__ = ["UNNAMED", "PlainRow", "plain_answer", "tensors_of_row", "value_of_outputs"]

UNNAMED: Final = "input-0"
"""Name of the one input of a model whose server does not say what it takes."""


class PlainRow(NamedTuple):
    """A row as tensors.

    Attributes:
        tensors: One for each input.
        alone: Whether it was made a batch of one.
    """

    tensors: list[Tensor]
    alone: bool


def tensors_of_row(row: Row, inputs: Sequence[TensorSpec]) -> PlainRow:
    """Return a row as tensors of ``inputs``; of none, when the server does not say them, by what the values are."""
    specs = {spec.name: spec for spec in inputs}
    tensors: list[Tensor] = []
    alone = False
    for name, value in _by_name(row, specs).items():
        spec = specs.get(name)
        if spec is None and inputs:
            raise InvalidRequest(f"the model has no input {clip(name, 100)!r}: it takes {_listed(inputs)}")
        tensor, added = _tensor(name, spec, value)
        tensors.append(tensor)
        alone |= added
    missing = [name for name in specs if all(tensor.name != name for tensor in tensors)]
    if len(missing) == len(specs) and specs:
        raise InvalidRequest(f"the request has no input: the model takes {_listed(inputs)}")
    return PlainRow(tensors, alone)


def value_of_outputs(outputs: Sequence[Tensor], *, alone: bool) -> Any:
    """Return a model's outputs as a value: of one output its own, of several an object by name.

    Texts that are the only element of the only output are bytes here, others strings; what is no text is
    `{"b64": "…"}`.
    """
    if len(outputs) == 1:
        (output,) = outputs
        if output.datatype is BYTES and len(output.values) == 1 and _sides(output, alone=alone) in ((), (1,)):
            return output.values[0]
        return _value(output, alone=alone)
    return {output.name: _value(output, alone=alone) for output in outputs}


def plain_answer(value: Any, to_json: Callable[[Any], bytes]) -> Answer:
    """Return a plain value as an answer: a lone text or bytes as such, all else as ``to_json`` writes it."""
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            return Answer(200, value, "bytes", OCTETS)
        return Answer(200, value, "text")
    return Answer(200, to_json(value), "json", JSON)


def _by_name(row: Row, specs: Mapping[str, TensorSpec]) -> Mapping[str, Any]:
    """Return what a row holds for each input: bytes, or a JSON value."""
    if not row.is_raw:
        return {part.name: _read(part, specs.get(part.name)) for part in row.parts}
    (part,) = row.parts
    only = next(iter(specs.values())) if len(specs) == 1 else None
    value = _read(part, only)
    if isinstance(value, dict) and specs and not is_b64(value) and (len(specs) > 1 or value.keys() == specs.keys()):
        return value
    if len(specs) > 1:
        raise InvalidRequest(
            f"the model takes {len(specs)} inputs, {_listed(list(specs.values()))}: send a JSON object or a form that "
            "has them by name, or an Open Inference request"
        )
    return {only.name if only is not None else UNNAMED: value}


def _read(part: Part, spec: TensorSpec | None) -> Any:
    """Return the value of a part: bytes, or what its JSON holds."""
    kind, data = mime_type(part.content_type).lower(), bytes(part.value)
    numeric = spec is not None and spec.datatype != BYTES.name
    if kind == JSON or (numeric and kind != OCTETS and not kind.startswith(("image/", "audio/", "video/"))):
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as exc:
            if spec is None or not numeric:
                if kind == JSON:
                    raise InvalidRequest(f"the body is no JSON: {clip(str(exc), 200)}") from exc
                return data
            raise InvalidRequest(
                f"input {spec.name!r} takes {_wanted(spec)}: send its values as JSON, such as {_example(spec)}, or "
                f"its bytes as {OCTETS}"
            ) from exc
    return data


def _tensor(name: str, spec: TensorSpec | None, value: Any) -> tuple[Tensor, bool]:
    """Return a value as a tensor, and whether a first dimension of 1 was added."""
    where = f"input {clip(name, 100)!r}"
    if is_b64(value):
        try:
            value = base64.b64decode(value["b64"], validate=True)
        except ValueError:
            raise InvalidRequest(f"{where} has a b64 that is no base64") from None
    datatype = datatype_of(spec.datatype, where=where) if spec is not None else None
    if isinstance(value, bytes):
        return _of_bytes(name, spec, datatype, value, where)
    if datatype is BYTES and isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    shape = common_shape(value) if isinstance(value, list) else ()
    if shape is None:
        raise InvalidRequest(f"{where} has lists of several lengths side by side: a tensor has the same everywhere")
    leaves = list(leaves_of(value, len(shape))) if isinstance(value, list) else [value]
    if spec is None or datatype is None:
        datatype = _datatype_for(leaves, where)
        whole, alone = shape or (1,), not shape
    else:
        whole, alone = _fitted(shape, spec, where)
    raw = [_unwrapped(each) for each in leaves] if datatype is BYTES else leaves
    # A value alone has no dimension to check.
    sides = shape_of(whole, where=where) if len(whole) else whole
    values = flat_values(raw, datatype, sides, {}, where=where)
    return Tensor(name, datatype, whole, values), alone


def _of_bytes(
    name: str, spec: TensorSpec | None, datatype: Datatype | None, value: bytes, where: str
) -> tuple[Tensor, bool]:
    """Return bytes as the one element of a BYTES input, or as the data of another."""
    if spec is None or datatype is None:
        return Tensor(name, BYTES, (1,), [value]), True
    if datatype is BYTES:
        shape, alone = _fitted((), spec, where)
        return Tensor(name, BYTES, shape, [value]), alone
    wanted = list(spec.shape)
    alone = len(wanted) > 1 and wanted[0] in (-1, 1)
    shape = (1, *wanted[1:]) if alone else tuple(wanted)
    if shape.count(-1) > 1:
        raise InvalidRequest(f"{where} takes {_wanted(spec)}, which a number of bytes does not settle: send JSON")
    if -1 in shape:
        each = math.prod(side for side in shape if side != -1) * datatype.size
        shape = tuple(len(value) // each if side == -1 and each else side for side in shape)
    count = math.prod(shape_of(shape, where=where))
    return Tensor(name, datatype, shape, datatype.unpack(value, count=count, where=where)), alone


def _fitted(shape: tuple[int, ...], spec: TensorSpec, where: str) -> tuple[tuple[int, ...], bool]:
    """Return the shape that a value goes by, and whether a first dimension was added."""
    wanted = spec.shape
    if not wanted:
        return shape, False  # one value, or any shape
    if not shape and all(side in (-1, 1) for side in wanted):
        return (1,) * len(wanted), True
    alone = len(shape) == len(wanted) - 1 and wanted[0] in (-1, 1)
    whole = (1, *shape) if alone else shape
    if len(whole) != len(wanted) or any(side not in (-1, have) for have, side in zip(whole, wanted, strict=True)):
        has = f"the shape {list(shape)}" if shape else "a single value"
        raise InvalidRequest(f"{where} has {has}: the model takes {_wanted(spec)}, where -1 is any number")
    return whole, alone


def _datatype_for(leaves: Sequence[Any], where: str) -> Datatype:
    """Return the datatype for values of whose input nothing is known."""
    kinds = set(map(type, leaves))
    if kinds <= {bool}:
        return DATATYPES["BOOL"]
    if kinds <= {int}:
        return DATATYPES["INT64"]
    if kinds <= {int, float}:
        return DATATYPES["FP64"]
    if kinds <= {str, dict}:
        return BYTES
    raise InvalidRequest(f"{where} has values of several kinds: a tensor has numbers or texts, and nothing else")


def _unwrapped(value: Any) -> Any:
    """Return an element of BYTES as its text or its bytes."""
    if is_b64(value):
        return base64.b64decode(value["b64"])
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _sides(output: Tensor, *, alone: bool) -> tuple[int, ...]:
    return output.shape[1:] if alone and output.shape[:1] == (1,) else output.shape


def _value(output: Tensor, *, alone: bool) -> Any:
    values: Sequence[Any] = output.values
    if output.datatype is BYTES:
        values = [_as_json(value) for value in values]
    return nested(values, _sides(output, alone=alone)) if values else []


def _as_json(value: Any) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _listed(inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in inputs)


def _wanted(spec: TensorSpec) -> str:
    return f"{spec.datatype} of the shape {list(spec.shape)}"


def _example(spec: TensorSpec) -> str:
    """Return JSON of a small value that an input takes."""
    sides = [2 if side == -1 else min(side, 2) for side in spec.shape[1:]]
    return json.dumps(nested([0] * math.prod(sides), sides))
