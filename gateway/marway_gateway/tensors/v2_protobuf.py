"""Inference requests and responses of the Open Inference Protocol over gRPC: typed contents, or raw binary tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from marway.errors import InvalidRequest, clip
from marway.records import Signature, VersionRecord
from marway_gateway.proto import open_inference_pb2 as pb
from marway_gateway.tensors.datatypes import Datatype, Value, datatype_of
from marway_gateway.tensors.parameters import (
    OF_INPUT,
    OF_OUTPUT,
    OF_REQUEST,
    check_parameters,
    element_type,
    flag_of,
    timeout_of,
)
from marway_gateway.tensors.rows import check_inputs
from marway_gateway.tensors.tensor import Tensor, shape_of
from marway_gateway.tensors.v2_json import (
    InferRequest,
    WantedOutput,
    picked,
    wanted_outputs,
)

__all__ = ["parse_message", "render_message"]

_CONTENTS: Final[Mapping[str, str]] = {
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


def parse_message(message: pb.ModelInferRequest, signature: Signature) -> InferRequest:
    """Return the request that a message holds.

    Args:
        message: As it came.
        signature: What the version takes and gives.

    Raises:
        InvalidRequest: It is no such request, or none that this version takes.
    """
    raw = message.raw_input_contents
    inputs = [_input(message, index) for index in range(len(message.inputs))]
    if len(raw) > len(inputs):
        raise _unequal(message)
    check_inputs(inputs, signature)
    parameters = _parameters(message.parameters, OF_REQUEST, where="the request")
    binary = flag_of(parameters, "binary_data_output", where="the request")
    outputs = wanted_outputs([_wanted(each) for each in message.outputs], signature)
    return InferRequest(
        inputs,
        message.id or None,
        outputs,
        binary=_raw_wanted(outputs, bool(raw) if binary is None else binary),
        timeout_s=timeout_of(parameters),
    )


def render_message(outputs: Sequence[Tensor], request: InferRequest, record: VersionRecord) -> pb.ModelInferResponse:
    """Return the response.

    Raises:
        ModelError: An output was asked for that the handler did not give.
    """
    tensors = [tensor for tensor, _ in picked(outputs, request.outputs, record)]
    response = pb.ModelInferResponse(model_name=record.name, model_version=record.version, id=request.id or "")
    raw = request.binary or any(tensor.datatype.name not in _CONTENTS for tensor in tensors)
    for tensor in tensors:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.shape)
        if raw:
            response.raw_output_contents.append(tensor.datatype.pack(tensor.values))
        else:
            getattr(output.contents, _CONTENTS[tensor.datatype.name]).extend(tensor.values)
    return response


def _input(request: pb.ModelInferRequest, index: int) -> Tensor:
    """Return one input."""
    message, raw = request.inputs[index], request.raw_input_contents
    where = f"input {clip(message.name, 100)!r}"
    parameters = _parameters(message.parameters, OF_INPUT, where=where)
    if raw and message.contents.ListFields():  # a client may set the field and leave it empty
        raise InvalidRequest(f"{where} has contents beside raw_input_contents")
    datatype = datatype_of(message.datatype, where=where)
    shape = shape_of(list(message.shape), where=where)
    content_type = element_type(parameters, where=where) if datatype.kind == "bytes" else None
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
    field = _CONTENTS.get(datatype.name)
    if field is None:
        raise InvalidRequest(f"{where} is {datatype.name}, which has no typed contents: send raw_input_contents")
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    if filled not in ([], [field]):
        raise InvalidRequest(f"{where} is {datatype.name} and has {', '.join(filled)}: its values belong in {field}")
    values = list(getattr(contents, field))
    if len(values) != count:
        raise InvalidRequest(f"{where} has {len(values)} elements in {field}; its shape has {count}")
    if datatype.kind == "int":
        for index, value in enumerate(values):
            if not datatype.accepts(value):
                raise InvalidRequest(f"{where} is {datatype.name}; its element {index}, {value}, is none")
    return values


def _wanted(message: pb.ModelInferRequest.InferRequestedOutputTensor) -> WantedOutput:
    where = f"output {clip(message.name, 100)!r}"
    parameters = _parameters(message.parameters, OF_OUTPUT, where=where)
    return WantedOutput(message.name, flag_of(parameters, "binary_data", where=where))


def _raw_wanted(outputs: Sequence[WantedOutput], default: bool) -> bool:
    """Return whether outputs go back raw: a response has `raw_output_contents` for all of them, or for none.

    Raises:
        InvalidRequest: Some are wanted so and some not.
    """
    wanted = {default if each.binary is None else each.binary for each in outputs} or {default}
    if len(wanted) > 1:
        raise InvalidRequest(
            "some outputs are wanted as binary and some are not: over gRPC all are raw, or none is, so give all the "
            "same binary_data, or the request binary_data_output"
        )
    return wanted.pop()


def _parameters(parameters: Mapping[str, pb.InferParameter], known: tuple[str, ...], *, where: str) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        plain[name] = None if choice is None else getattr(parameter, choice)
    check_parameters(plain, known, where=where)
    return plain
