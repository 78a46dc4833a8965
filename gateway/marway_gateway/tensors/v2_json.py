"""Inference requests and responses of the Open Inference Protocol over REST: JSON, with its binary tensor extension.

A request whose tensors are binary says in `Inference-Header-Content-Length` how many bytes of its body are JSON; the
data of each tensor that has `binary_data_size` follow, in the order of the inputs. Responses have the same form.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from marway.errors import InvalidRequest, ModelError, clip
from marway.records import Signature, VersionRecord
from marway_gateway.tensors.datatypes import Value, datatype_of
from marway_gateway.tensors.outputs import DEFAULT_OUTPUT
from marway_gateway.tensors.parameters import (
    OF_INPUT,
    OF_OUTPUT,
    OF_REQUEST,
    check_parameters,
    element_type,
    flag_of,
    timeout_of,
)
from marway_gateway.tensors.rows import JSON, OCTETS, Rendered, check_inputs
from marway_gateway.tensors.tensor import BASE64, Tensor, flat_values, json_object, shape_of
from marway_gateway.tensors.v2_raw import raw_input

__all__ = [
    "HEADER_LENGTH",
    "InferRequest",
    "WantedOutput",
    "parse_infer",
    "picked",
    "render_infer",
    "wanted_outputs",
]

HEADER_LENGTH: Final = "inference-header-content-length"
"""Header that says how many bytes of a body are its JSON."""


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that the caller asked for, and whether as binary; None leaves that to the request."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference request.

    Attributes:
        inputs: Its tensors.
        id: The caller's own, given back.
        outputs: Those that the caller wants; none means all.
        binary: Whether outputs go back as binary where they say nothing.
        timeout_s: How long the caller waits, from when the request came; None leaves that to its headers.
    """

    inputs: Sequence[Tensor]
    id: str | None = None
    outputs: Sequence[WantedOutput] = field(default=())
    binary: bool = False
    timeout_s: float | None = None


def parse_infer(body: bytes, *, header_length: str | None, signature: Signature) -> InferRequest:
    """Return the request that a body holds.

    Args:
        body: All of it.
        header_length: `Inference-Header-Content-Length` as it was sent; 0 says that the body is the data of one input.
        signature: What the version takes and gives.

    Raises:
        InvalidRequest: It is no such request, or none that this version takes.
    """
    text, data = body, memoryview(b"")
    if header_length is not None:
        length = int(header_length) if header_length.isascii() and header_length.isdigit() else -1
        if length == 0:
            tensor = raw_input(body, signature)
            check_inputs([tensor], signature)
            return InferRequest([tensor], binary=True)
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
    check_inputs(inputs, signature)
    parameters = _parameters(document, OF_REQUEST, where="the request")
    return InferRequest(
        inputs,
        request_id,
        _outputs(document.get("outputs"), signature),
        binary=flag_of(parameters, "binary_data_output", where="the request") or False,
        timeout_s=timeout_of(parameters),
    )


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
    return b"".join([text, *sections]), [("content-type", OCTETS), (HEADER_LENGTH, str(len(text)))]


def wanted_outputs(names: Sequence[WantedOutput], signature: Signature) -> list[WantedOutput]:
    """Return the outputs that a caller asked for.

    Raises:
        InvalidRequest: The version has no such output, or one is asked for twice.
    """
    known = [spec.name for spec in signature.outputs] or [DEFAULT_OUTPUT]
    for index, wanted in enumerate(names):
        if wanted.name not in known:
            raise InvalidRequest(f"the model has no output {clip(wanted.name, 100)!r}: it gives {', '.join(known)}")
        if any(wanted.name == earlier.name for earlier in names[:index]):
            raise InvalidRequest(f"the output {wanted.name!r} is asked for twice")
    return list(names)


def picked(
    outputs: Sequence[Tensor], wanted: Sequence[WantedOutput], record: VersionRecord
) -> list[tuple[Tensor, WantedOutput]]:
    """Return the outputs that were asked for, in that order; all when none was.

    Raises:
        ModelError: The handler did not give one of them.
    """
    if not wanted:
        return [(tensor, WantedOutput(tensor.name)) for tensor in outputs]
    named = {tensor.name: tensor for tensor in outputs}
    for each in wanted:
        if each.name not in named:
            raise ModelError(
                f"the handler's answer has no output {each.name!r}, which its signature promises",
                model=record.name,
                version=record.version,
            )
    return [(named[each.name], each) for each in wanted]


def _input(raw: object, index: int, data: memoryview, *, binary_follows: bool) -> tuple[Tensor, memoryview]:
    """Return one input, and what is left of the binary data."""
    where = f"input {index}"
    if not isinstance(raw, dict):
        raise InvalidRequest(f"{where} is no object")
    name = raw.get("name")
    if not isinstance(name, str):
        raise InvalidRequest(f"{where} has no name")
    where = f"input {clip(name, 100)!r}"
    datatype = datatype_of(raw.get("datatype"), where=where)
    shape = shape_of(raw.get("shape"), where=where)
    parameters = _parameters(raw, OF_INPUT, where=where)
    content_type = element_type(parameters, where=where) if datatype.kind == "bytes" else None
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


def _outputs(raw: object, signature: Signature) -> list[WantedOutput]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise InvalidRequest("outputs is no list")
    wanted = []
    for index, each in enumerate(raw):
        where = f"output {index}"
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise InvalidRequest(f"{where} has no name")
        parameters = _parameters(each, OF_OUTPUT, where=where)
        wanted.append(WantedOutput(each["name"], flag_of(parameters, "binary_data", where=where)))
    return wanted_outputs(wanted, signature)


def _parameters(raw: Mapping[str, Any], known: tuple[str, ...], *, where: str) -> dict[str, Any]:
    parameters = raw.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"{where} has parameters that are no object")
    check_parameters(parameters, known, where=where)
    return parameters


def _data(tensor: Tensor, record: VersionRecord, nonfinite: Literal["error", "null"]) -> dict[str, Any]:
    """Return a tensor's data as members of its JSON."""
    if tensor.datatype.kind == "bytes":
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
