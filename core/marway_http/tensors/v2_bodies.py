"""Bodies of the Open Inference Protocol over REST, of and for programs that want tensors: requests written, responses
read; and requests without binary tensors, for servers that know none.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final

from marway.errors import InvalidRequest, MarwayError, clip
from marway.wire.envelope import Bytes
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import datatype_of
from marway_http.tensors.tensor import BASE64, Tensor, flat_values, json_object
from marway_http.tensors.v2_parameters import ALL_BINARY, SIZE, plain_parameters

__all__ = ["json_request", "may_be_request", "tensor_request", "tensors_of_response"]

_TOLD: Final = tuple(re.compile(each) for each in (rb'"inputs"\s*:\s*\[\s*\{', rb'"datatype"\s*:', rb'"shape"\s*:'))


def may_be_request(body: Bytes) -> bool:
    """Return whether JSON has what every request of the protocol has; one of megabytes is not parsed to find out."""
    return all(each.search(body) for each in _TOLD)


def tensor_request(tensors: Sequence[Tensor]) -> tuple[bytes, int]:
    """Return a request with binary tensors, which asks for all outputs as such, and how many bytes of it are JSON."""
    sections = [tensor.datatype.pack(tensor.values) for tensor in tensors]
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype.name,
            "shape": list(tensor.shape),
            "parameters": {SIZE: len(section)},
        }
        for tensor, section in zip(tensors, sections, strict=True)
    ]
    text = json.dumps({"inputs": inputs, "parameters": {ALL_BINARY: True}}, separators=(",", ":")).encode()
    return b"".join([text, *sections]), len(text)


def tensors_of_response(body: bytes, header_length: int | None) -> list[Tensor]:
    """Return the outputs of a response.

    Raises:
        MarwayError: It is none.
    """
    text = body if header_length is None else body[:header_length]
    data = memoryview(body)[len(text) :]
    try:
        found = []
        for index, each in enumerate(json_object(text, nonfinite=True)["outputs"]):
            where = f"output {index}"
            datatype = datatype_of(each["datatype"], where=where)
            shape, parameters = tuple(each["shape"]), each.get("parameters") or {}
            size = parameters.get(SIZE)
            if size is None:
                values = flat_values(each.get("data"), datatype, shape, parameters, where=where)
            else:
                values = datatype.unpack(data[:size], count=math.prod(shape), where=where)
                data = data[size:]
            found.append(Tensor(each["name"], datatype, shape, values))
    except (InvalidRequest, KeyError, TypeError, ValueError, AttributeError) as exc:
        why = exc.message if isinstance(exc, InvalidRequest) else repr(exc)
        raise MarwayError(f"the model server's answer cannot be read: {clip(why, 300)}") from exc
    return found


def json_request(message: bytes) -> bytes:
    """Return a `ModelInferRequest` with raw contents as a request that is all JSON.

    Raises:
        InvalidRequest: A tensor has other bytes than its shape says.
    """
    request = pb.ModelInferRequest.FromString(message)
    inputs: list[dict[str, Any]] = []
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        where = f"input {clip(tensor.name, 100)!r}"
        datatype = datatype_of(tensor.datatype, where=where)
        values: Sequence[Any] = datatype.unpack(raw, count=math.prod(tensor.shape), where=where)
        parameters = plain_parameters(tensor.parameters)
        if datatype.kind is bytes:
            try:
                values = [value.decode() for value in values]
            except UnicodeDecodeError:
                values = [base64.b64encode(value).decode() for value in values]
                parameters["content_type"] = BASE64
        told = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": values}
        inputs.append({**told, **({"parameters": parameters} if parameters else {})})
    document: dict[str, Any] = {"inputs": inputs}
    if request.id:
        document["id"] = request.id
    if request.parameters:
        document["parameters"] = plain_parameters(request.parameters)
    if request.outputs:
        document["outputs"] = [
            {"name": each.name, "parameters": plain_parameters(each.parameters)} for each in request.outputs
        ]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
