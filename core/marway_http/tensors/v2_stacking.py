"""Requests of one model made one request with all their rows, and its response made theirs.

For models whose first dimension is the rows, in every input and every output, as Triton has it where `max_batch_size`
is not 0. Tensors are bytes here that are joined and cut: nothing looks at their values, but for the lengths of BYTES.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import BYTES

__all__ = ["RowsRequest", "responses_of_stack", "rows_of_request", "stack_of_requests"]

_LENGTH: Final = 4
"""Bytes of the length before each element of BYTES."""


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """A request that may be stacked with others.

    Attributes:
        message: It itself.
        rows: How many it has.
        kind: What the requests of one stack have in common.
    """

    message: pb.ModelInferRequest
    rows: int
    kind: Hashable


def rows_of_request(message: bytes) -> RowsRequest | None:
    """Return a `ModelInferRequest` with raw contents as one that may be stacked.

    None for one that has parameters, which are its own matter (a sequence, a priority), or whose inputs have not the
    same number of rows.
    """
    request = pb.ModelInferRequest.FromString(message)
    tensors, sections = request.inputs, request.raw_input_contents
    if request.parameters or not tensors or len(tensors) != len(sections):
        return None
    rows = tensors[0].shape[0] if tensors[0].shape else 0
    plain = all(not each.parameters and each.shape and each.shape[0] == rows for each in tensors)
    if rows < 1 or not plain or any(each.parameters for each in request.outputs):
        return None
    inputs = tuple((each.name, each.datatype, tuple(each.shape[1:])) for each in tensors)
    outputs = tuple(each.name for each in request.outputs)
    return RowsRequest(request, rows, (request.model_name, request.model_version, inputs, outputs))


def stack_of_requests(requests: Sequence[RowsRequest]) -> bytes:
    """Return requests of one kind as one `ModelInferRequest`, their rows in their order."""
    first = requests[0].message
    whole = pb.ModelInferRequest(model_name=first.model_name, model_version=first.model_version)
    whole.outputs.extend(first.outputs)
    rows = sum(each.rows for each in requests)
    for index, tensor in enumerate(first.inputs):
        whole.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[rows, *tensor.shape[1:]])
        whole.raw_input_contents.append(b"".join(each.message.raw_input_contents[index] for each in requests))
    return whole.SerializeToString()


def responses_of_stack(message: bytes, requests: Sequence[RowsRequest]) -> list[bytes] | None:
    """Return the response to a stack as one for each of its requests; None when its outputs have other rows."""
    try:
        response = pb.ModelInferResponse.FromString(message)
    except DecodeError:
        return None
    if len(response.outputs) != len(response.raw_output_contents):
        return None
    counts = [each.rows for each in requests]
    parts: list[pb.ModelInferResponse] = []
    for request in requests:
        parts.append(pb.ModelInferResponse(model_name=response.model_name, model_version=response.model_version))
        parts[-1].id = request.message.id
        for name, parameter in response.parameters.items():
            parts[-1].parameters[name].CopyFrom(parameter)
    for tensor, section in zip(response.outputs, response.raw_output_contents, strict=True):
        sections = _cut(tensor, section, counts)
        if sections is None:
            return None
        for part, rows, piece in zip(parts, counts, sections, strict=True):
            output = part.outputs.add()
            output.CopyFrom(tensor)
            output.shape[0] = rows
            part.raw_output_contents.append(piece)
    return [part.SerializeToString() for part in parts]


def _cut(tensor: pb.ModelInferResponse.InferOutputTensor, section: bytes, counts: Sequence[int]) -> list[bytes] | None:
    """Return an output's bytes by request; None when it has not their rows."""
    total = sum(counts)
    if not tensor.shape or tensor.shape[0] != total:
        return None
    if tensor.datatype == BYTES.name:
        elements = 1
        for side in tensor.shape[1:]:
            elements *= side
        ends = _ends(section, [rows * elements for rows in counts])
    else:
        each, odd = divmod(len(section), total)
        ends = None if odd else [each * sum(counts[: index + 1]) for index in range(len(counts))]
    if ends is None or ends[-1] != len(section):
        return None
    return [section[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _ends(section: bytes, counts: Sequence[int]) -> list[int] | None:
    """Return where each number of elements of BYTES ends, one after the other; None when there are fewer."""
    ends, at = [], 0
    for count in counts:
        for _ in range(count):
            if at + _LENGTH > len(section):
                return None
            at += _LENGTH + int.from_bytes(section[at : at + _LENGTH], "little")
        ends.append(at)
    return ends
