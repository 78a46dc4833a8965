"""The rows that a handler gets of a request of v1 or v2, as Marway makes them (docs/protocols.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from marway.answers.golden import ExampleInput
from marway.records import Signature, TensorSpec
from marway_archiver.adopt.comparing.sent import OldAnswer, OldRequest
from marway_archiver.adopt.found import FoundModel

__all__ = ["handler_rows", "observed_signature"]

_JSON, _TEXT = "application/json", "text/plain"


def handler_rows(request: OldRequest) -> list[ExampleInput]:
    """Return the rows of a request as they would be posted alone.

    Raises:
        ValueError: They are not told by the request's JSON alone; the message says why.
    """
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError) as exc:
        raise ValueError("its body is no JSON") from exc
    values = _instances(document) if request.route.protocol == "v1" else _tensor_rows(document)
    return [_row(each) for each in values]


def _instances(document: Any) -> list[Any]:
    rows = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ValueError("it has no instances")
    if '"b64"' in json.dumps(rows):
        raise ValueError("its instances hold bytes, of which the signature decides what a handler gets")
    return rows


def _tensor_rows(document: Any) -> list[Any]:
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ValueError("it has not just one input")
    data, shape = inputs[0].get("data"), inputs[0].get("shape")
    if not isinstance(data, list) or not isinstance(shape, list) or not shape or not shape[0]:
        raise ValueError("its input has no data or no rows")
    count = shape[0]
    if len(data) == count and not (len(shape) > 1 and shape[1:] != [1] and not isinstance(data[0], list)):
        return data
    if len(shape) == 2 and len(data) == count * shape[1]:  # flat, as v2 allows
        return [data[at : at + shape[1]] for at in range(0, len(data), shape[1])]
    raise ValueError("its data is neither flat rows nor nested ones")


def _row(value: Any) -> ExampleInput:
    if isinstance(value, str):
        return ExampleInput(value.encode(), _TEXT)
    return ExampleInput(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), _JSON)


def observed_signature(model: FoundModel, pairs: list[tuple[OldRequest, OldAnswer]]) -> Signature | None:
    """Return the tensors of an archive whose clients speak v2, as requests and answers have them; None without any.

    So answers have the names and datatypes that clients know. Lengths that are not the same in all are open, and so is
    the number of rows.
    """
    if model.archive is None or not pairs or any(each.route.protocol != "v2" for each, _ in pairs):
        return None
    sides: list[tuple[dict[str, TensorSpec], str]] = [({}, "inputs"), ({}, "outputs")]
    for request, answer in pairs:
        for (found, side), body in zip(sides, (request.body, answer.body), strict=True):
            try:
                tensors = json.loads(body)[side]
                specs = [_spec(each, rows=side == "inputs") for each in tensors]
            except (ValueError, RecursionError, KeyError, TypeError):
                return None
            if found and [each.name for each in specs] != [*found]:
                return None  # not the same ones in each
            for each in specs:
                known = found.setdefault(each.name, each)
                if known.datatype != each.datatype or len(known.shape) != len(each.shape):
                    return None
                both = zip(known.shape, each.shape, strict=True)
                shape = tuple(one if one == other else -1 for one, other in both)
                found[each.name] = TensorSpec(name=each.name, datatype=each.datatype, shape=shape)
    inputs, outputs = (tuple(found.values()) for found, _ in sides)
    return Signature(inputs=inputs, outputs=outputs) if inputs and outputs else None


def _spec(tensor: Mapping[str, Any], *, rows: bool) -> TensorSpec:
    """Return a tensor's form; KServe's envelope for TorchServe leaves the rows' dimension of answers out."""
    shape = tuple(int(size) for size in tensor["shape"])
    if not shape:
        raise ValueError("no dimension of rows")
    inner = shape[1:] if rows or shape == (1,) else shape
    return TensorSpec(name=str(tensor["name"]), datatype=str(tensor["datatype"]), shape=(-1, *inner))
