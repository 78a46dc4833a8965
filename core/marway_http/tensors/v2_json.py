"""Inference requests and responses of the Open Inference Protocol over REST: JSON, with its binary tensor extension.

A request whose tensors are binary says in `Inference-Header-Content-Length` how many bytes of its body are JSON; the
data of each tensor that has `binary_data_size` follow, in the order of the inputs. Responses have the same form. With 0
there is no JSON, and the body is the data of the version's one input (Triton's protocol/extension_binary_data.md).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal

from marway.errors import InvalidRequest, ModelError, clip
from marway.records import Signature, VersionRecord
from marway.resolve.resolved import Resolved
from marway_http.tensors.datatypes import Datatype, Value, datatype_of
from marway_http.tensors.outputs import outputs_of
from marway_http.tensors.requests import Reading, Rendered
from marway_http.tensors.rows import JSON, OCTETS, rows_of
from marway_http.tensors.tensor import BASE64, Tensor, flat_values, json_object, shape_of
from marway_http.tensors.v2 import (
    InferRequest,
    WantedOutput,
    check_sequence,
    described,
    infer_request,
    picked,
    wanted_output,
)

__all__ = ["parse_infer", "raw_input_of", "read_infer", "render_infer"]

_HEADER_LENGTH: Final = "inference-header-content-length"
"""Header that says how many bytes of a body are its JSON."""


def read_infer(body: bytes, header_length: str | None, version: Resolved) -> Reading:
    """Read a request."""
    request = parse_infer(body, header_length=header_length, signature=version.record.signature)
    sequence, render = check_sequence(request, version.record), partial(_render, replace(request, inputs=()), version)
    return Reading(rows_of(request.inputs), render, request.timeout_s, sequence)


def _render(request: InferRequest, version: Resolved, values: list[Any]) -> Rendered:
    record = version.record
    return render_infer(outputs_of(values, record.signature), request, record, nonfinite=version.serving.nonfinite)


def parse_infer(body: bytes, *, header_length: str | None, signature: Signature) -> InferRequest:
    """Return the request that a body holds.

    Args:
        body: All of it.
        header_length: `Inference-Header-Content-Length` as it was sent; 0 says that the body is the data of one input.
        signature: What the version takes and gives.
    """
    text, data = body, memoryview(b"")
    if header_length is not None:
        length = int(header_length) if header_length.isascii() and header_length.isdigit() else -1
        if length == 0:
            tensor = _raw_input(body, signature)
            return infer_request([tensor], None, (), {}, signature, binary=True)
        if not 0 < length <= len(body):
            raise InvalidRequest(
                f"Inference-Header-Content-Length is {clip(header_length, 40)!r}: give the number of bytes of the "
                f"body's JSON, 1 to {len(body)}, or 0 for a body that is the data of one input"
            )
        text, data = body[:length], memoryview(body)[length:]
    document = json_object(text)
    request_id = document.get("id")
    if not isinstance(request_id, str | None):
        raise InvalidRequest("the request's id is no text")
    raw = document.get("inputs")
    if not isinstance(raw, list):
        raise InvalidRequest("the request has no list of inputs, each with name, shape, datatype and data")
    inputs = []
    for index, each in enumerate(raw):
        tensor, data = _input(each, index, data, binary_follows=header_length is not None)
        inputs.append(tensor)
    if len(data):
        raise InvalidRequest(
            f"{len(data)} bytes are left after the last binary tensor: a binary_data_size is too small"
        )
    wanted = document.get("outputs")
    if not isinstance(wanted, list | None):
        raise InvalidRequest("outputs is no list")
    outputs = [_output(each, f"output {index}") for index, each in enumerate(wanted or ())]
    parameters = _parameters(document, where="the request")
    return infer_request(inputs, request_id, outputs, parameters, signature, binary=False)


def render_infer(
    outputs: Sequence[Tensor],
    request: InferRequest,
    record: VersionRecord,
    *,
    nonfinite: Literal["error", "null"] = "error",
) -> Rendered:
    """Return a response's body and its content headers.

    Args:
        outputs: What the version answered.
        request: The request.
        record: The version.
        nonfinite: What becomes of numbers that JSON has not, where JSON was asked for.

    Raises:
        ModelError: JSON was asked for, and a number is one that JSON has not; or an output was, that there is not.
    """
    described: list[dict[str, Any]] = []
    sections: list[bytes] = []
    for tensor, wanted in picked(outputs, request.outputs, record):
        document: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype.name,
            "shape": list(tensor.shape),
        }
        if request.binary if wanted.binary is None else wanted.binary:
            sections.append(tensor.datatype.pack(tensor.values))
            document["parameters"] = {"binary_data_size": len(sections[-1])}
        else:
            document.update(_data(tensor, record, nonfinite))
        described.append(document)
    response: dict[str, Any] = {"model_name": record.name, "model_version": record.version}
    if request.id is not None:
        response["id"] = request.id
    text = json.dumps({**response, "outputs": described}, separators=(",", ":")).encode()
    if not sections:
        return text, [("content-type", JSON)]
    return b"".join([text, *sections]), [("content-type", OCTETS), (_HEADER_LENGTH, str(len(text)))]


def raw_input_of(size: int, signature: Signature) -> tuple[str, Datatype, tuple[int, ...]]:
    """Return name, datatype and shape of the one input whose data a raw binary body of ``size`` bytes is.

    Name and datatype are the signature's, and the shape follows from the number of bytes. It is one row.

    Raises:
        InvalidRequest: The signature has another number of inputs, or the shape does not follow.
    """
    inputs = signature.inputs
    if len(inputs) != 1 or not inputs[0].shape:
        has = "no shape for its one input" if len(inputs) == 1 else f"{len(inputs) or 'no'} inputs"
        raise InvalidRequest(
            "Inference-Header-Content-Length is 0, which says that the body is the data of the version's one input; "
            f"this signature has {has}: give the number of bytes of the body's JSON, which says what the "
            "inputs are"
        )
    (spec,) = inputs
    where = f"input {spec.name!r}"
    datatype = datatype_of(spec.datatype, where=where)
    shape = [1 if spec.shape[0] == -1 else spec.shape[0], *spec.shape[1:]]
    if shape.count(-1) > 1 or (datatype.kind is bytes and math.prod(shape) != 1):
        raise InvalidRequest(
            f"{where} takes the shape {list(spec.shape)}, which the number of bytes in a raw binary request does not "
            "settle: send its shape as JSON before the tensor"
        )
    if -1 in shape:
        each = math.prod(side for side in shape if side != -1) * datatype.size
        shape[shape.index(-1)] = size // each if each else 0
    return spec.name, datatype, tuple(shape)


def _raw_input(body: bytes, signature: Signature) -> Tensor:
    """Return the one input that a raw binary body is; of a BYTES input it is the one element, without its length."""
    name, datatype, shape = raw_input_of(len(body), signature)
    if datatype.kind is bytes:
        return Tensor(name, datatype, shape, [body])
    where = f"input {name!r}"
    values = datatype.unpack(body, count=math.prod(shape_of(shape, where=where)), where=where)
    return Tensor(name, datatype, shape, values)


def _input(raw: object, index: int, data: memoryview, *, binary_follows: bool) -> tuple[Tensor, memoryview]:
    """Return one input, and what is left of the binary data."""
    where = f"input {index}"
    if not isinstance(raw, dict):
        raise InvalidRequest(f"{where} is no object")
    name = raw.get("name")
    if not isinstance(name, str):
        raise InvalidRequest(f"{where} has no name")
    where = f"input {clip(name, 100)!r}"
    parameters = _parameters(raw, where=where)
    datatype, shape, content_type = described(raw.get("datatype"), raw.get("shape"), parameters, where=where)
    size = parameters.get("binary_data_size")
    if size is None:
        values = flat_values(raw.get("data"), datatype, shape, parameters, where=where)
        return Tensor(name, datatype, shape, values, content_type), data
    if "data" in raw:
        raise InvalidRequest(f"{where} has both data and binary_data_size")
    if not binary_follows:
        raise InvalidRequest(f"{where} has binary_data_size, but the request no Inference-Header-Content-Length")
    if type(size) is not int or not 0 <= size <= len(data):
        raise InvalidRequest(
            f"{where} has the binary_data_size {clip(repr(size), 40)}: {len(data)} bytes of binary data are left"
        )
    values = datatype.unpack(data[:size], count=math.prod(shape), where=where)
    return Tensor(name, datatype, shape, values, content_type), data[size:]


def _output(raw: object, where: str) -> WantedOutput:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise InvalidRequest(f"{where} has no name")
    return wanted_output(raw["name"], _parameters(raw, where=where), where=where)


def _parameters(raw: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    parameters = raw.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InvalidRequest(f"{where} has parameters that are no object")
    return parameters or {}


def _data(tensor: Tensor, record: VersionRecord, nonfinite: Literal["error", "null"]) -> dict[str, Any]:
    """Return a tensor's data as members of its JSON."""
    if tensor.datatype.kind is bytes:
        elements = [bytes(value) for value in tensor.values if isinstance(value, bytes)]
        try:
            return {"data": [value.decode() for value in elements]}
        except UnicodeDecodeError:
            return {
                "parameters": {"content_type": BASE64},
                "data": [base64.b64encode(value).decode() for value in elements],
            }
    values: list[Value | None] = list(tensor.values)
    for index, value in enumerate(values):
        if isinstance(value, float) and not math.isfinite(value):
            if nonfinite == "error":
                row = index // tensor.row_size
                raise ModelError(
                    f"row {row}: the output {tensor.name!r} is {value} there, a number that JSON has not: ask for it "
                    "as binary",
                    model=record.name,
                    version=record.version,
                )
            values[index] = None
    return {"data": values}
