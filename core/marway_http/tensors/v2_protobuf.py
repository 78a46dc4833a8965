"""Inference requests and responses of the Open Inference Protocol over gRPC: typed contents, or raw binary tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from google.protobuf.message import DecodeError

from marway.errors import InvalidRequest, clip
from marway.records import Signature, VersionRecord
from marway.resolve.resolved import Resolved
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import Datatype, Value
from marway_http.tensors.outputs import outputs_of
from marway_http.tensors.requests import Reading, Rendered
from marway_http.tensors.rows import rows_of
from marway_http.tensors.tensor import Tensor
from marway_http.tensors.v2 import InferRequest, check_sequence, described, infer_request, picked, wanted_output
from marway_http.tensors.v2_parameters import plain_parameters

__all__ = ["CONTENTS", "parse_message", "read_message"]

CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of `InferTensorContents` that has a datatype's values."""


def read_message(body: bytes, header_length: str | None, version: Resolved) -> Reading:
    """Read the bytes of a `ModelInferRequest`."""
    try:
        message = pb.ModelInferRequest.FromString(body)
    except DecodeError:
        raise InvalidRequest("the message cannot be parsed") from None
    request, record = parse_message(message, version.record.signature), version.record
    sequence, render = check_sequence(request, record), partial(_render, replace(request, inputs=()), record)
    return Reading(rows_of(request.inputs), render, request.timeout_s, sequence)


def parse_message(message: pb.ModelInferRequest, signature: Signature) -> InferRequest:
    """Return the request that a message holds, to a version that takes and gives what ``signature`` says."""
    raw = message.raw_input_contents
    inputs = [_input(message, index) for index in range(len(message.inputs))]
    if len(raw) > len(inputs):
        raise _unequal(message)
    outputs = [
        wanted_output(each.name, plain_parameters(each.parameters), where=f"output {clip(each.name, 100)!r}")
        for each in message.outputs
    ]
    request = infer_request(
        inputs, message.id or None, outputs, plain_parameters(message.parameters), signature, binary=bool(raw)
    )
    # A response has `raw_output_contents` for all of its outputs, or for none.
    wanted = {request.binary if each.binary is None else each.binary for each in outputs} or {request.binary}
    if len(wanted) > 1:
        raise InvalidRequest(
            "some outputs are wanted as binary and some are not: over gRPC all are raw, or none is, so give all the "
            "same binary_data, or the request binary_data_output"
        )
    return replace(request, binary=wanted.pop())


def _render(request: InferRequest, record: VersionRecord, values: list[Any]) -> Rendered:
    outputs = outputs_of(values, record.signature)
    tensors = [tensor for tensor, _ in picked(outputs, request.outputs, record)]
    response = pb.ModelInferResponse(model_name=record.name, model_version=record.version, id=request.id or "")
    raw = request.binary or any(tensor.datatype.name not in CONTENTS for tensor in tensors)
    for tensor in tensors:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.shape)
        if raw:
            response.raw_output_contents.append(tensor.datatype.pack(tensor.values))
        else:
            getattr(output.contents, CONTENTS[tensor.datatype.name]).extend(tensor.values)
    return response.SerializeToString(), []


def _input(request: pb.ModelInferRequest, index: int) -> Tensor:
    message, raw = request.inputs[index], request.raw_input_contents
    where = f"input {clip(message.name, 100)!r}"
    parameters = plain_parameters(message.parameters)
    if raw and message.contents.ListFields():  # a client may set the field and leave it empty
        raise InvalidRequest(f"{where} has contents beside raw_input_contents")
    datatype, shape, content_type = described(message.datatype, list(message.shape), parameters, where=where)
    count = math.prod(shape)
    data = raw[index] if index < len(raw) else None
    size = parameters.get("binary_data_size")
    if size is not None and (data is None or size != len(data)):
        has = "no raw_input_contents" if data is None else f"{len(data)} bytes in raw_input_contents"
        raise InvalidRequest(f"{where} has the binary_data_size {clip(repr(size), 40)}, and {has}")
    if data is not None:
        values = datatype.unpack(data, count=count, where=where)
    elif raw:
        raise _unequal(request)
    else:
        values = _typed(message.contents, datatype, count=count, where=where)
    return Tensor(message.name, datatype, shape, values, content_type)


def _unequal(request: pb.ModelInferRequest) -> InvalidRequest:
    return InvalidRequest(
        f"the request has {len(request.inputs)} inputs and {len(request.raw_input_contents)} raw_input_contents"
    )


def _typed(contents: pb.InferTensorContents, datatype: Datatype, *, count: int, where: str) -> list[Value]:
    field = CONTENTS.get(datatype.name)
    if field is None:
        raise InvalidRequest(f"{where} is {datatype.name}, which has no typed contents: send raw_input_contents")
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    if filled not in ([], [field]):
        raise InvalidRequest(f"{where} is {datatype.name} and has {', '.join(filled)}: its values belong in {field}")
    values = list(getattr(contents, field))
    if len(values) != count:
        raise InvalidRequest(f"{where} has {len(values)} elements in {field}; its shape has {count}")
    if datatype.kind is int and (index := datatype.refused(values)) is not None:
        raise InvalidRequest(f"{where} is {datatype.name}; its element {index}, {values[index]}, is none")
    return values
