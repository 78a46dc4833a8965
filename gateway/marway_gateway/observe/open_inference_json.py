"""Open Inference bodies with their values as plain JSON, for those who keep them and look into them later.

A body is a message, or JSON with binary tensors behind it; its media type says which. JSON has no NaN and no
infinities: they become null here.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError

from marway.errors import MarwayError
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import datatype_of
from marway_http.tensors.v2_parameters import ALL_BINARY, BINARY
from marway_http.tensors.v2_protobuf import CONTENTS
from marway_http.tensors.v2_to_message import HEADER_LENGTH, message_of_request, message_of_response
from marway_http.tensors.v2_to_rest import said_parameters, tensor_head, values_as_json

__all__ = ["REQUEST_MESSAGE", "RESPONSE_MESSAGE", "media_type", "media_type_of", "plain_request", "plain_response"]

REQUEST_MESSAGE: Final = "application/x-protobuf; messagetype=inference.ModelInferRequest"
RESPONSE_MESSAGE: Final = "application/x-protobuf; messagetype=inference.ModelInferResponse"
_LENGTH_HEADER: Final = HEADER_LENGTH.encode()
_PARAMETER: Final = f"; {HEADER_LENGTH}="
_LENGTH: Final = re.compile(re.escape(_PARAMETER) + "([1-9][0-9]{0,17})$")
_OF_FORM: Final = frozenset({ALL_BINARY, BINARY})
"""Parameters that say how values travel, and nothing else."""


def media_type(content_type: str, header_length: str) -> str:
    """Return the media type of JSON with binary tensors behind it, which says how long the JSON is."""
    return f"{content_type}{_PARAMETER}{header_length}"


def plain_request(body: bytes, media: str) -> bytes | None:
    """Return a request as JSON; None where ``media`` is no type of these, or the body is none.

    What it says of the form in which outputs are wanted is left out.
    """
    try:
        if media != REQUEST_MESSAGE:
            found = _LENGTH.search(media)
            if found is None:
                return None
            body, _ = message_of_request(body, int(found[1]), name="")
        request = pb.ModelInferRequest.FromString(body)
        document = _document(request, "inputs", request.inputs, request.raw_input_contents)
        if request.outputs:
            document["outputs"] = [{"name": each.name, **_parameters(each)} for each in request.outputs]
        return orjson.dumps(document)
    except (MarwayError, DecodeError, TypeError, ValueError, LookupError):
        return None


def plain_response(body: bytes, media: str) -> bytes | None:
    """Return a response as JSON; None where ``media`` is no type of these, or the body is none."""
    try:
        if media != RESPONSE_MESSAGE:
            found = _LENGTH.search(media)
            if found is None:
                return None
            body = message_of_response(body, int(found[1]), raw=True)
        response = pb.ModelInferResponse.FromString(body)
        document = {"model_name": response.model_name, "model_version": response.model_version}
        return orjson.dumps(document | _document(response, "outputs", response.outputs, response.raw_output_contents))
    except (MarwayError, DecodeError, TypeError, ValueError, LookupError):
        return None


def _document(message: Any, kind: str, tensors: Any, raw: Any) -> dict[str, Any]:
    if raw and len(raw) != len(tensors):
        raise ValueError("there are more or fewer values than tensors")
    document: dict[str, Any] = {"id": message.id} if message.id else {}
    document |= _parameters(message)
    document[kind] = [_tensor(each, raw[index] if raw else None) for index, each in enumerate(tensors)]
    return document


def _tensor(tensor: Any, data: bytes | None) -> dict[str, Any]:
    datatype = datatype_of(tensor.datatype, where="a tensor")
    if data is None:
        values = list(getattr(tensor.contents, CONTENTS[datatype.name]))
    else:
        values = datatype.unpack(data, count=math.prod(tensor.shape), where="a tensor")
    parameters = said_parameters(tensor.parameters)
    values = list(values_as_json(values, datatype, parameters))
    return {**tensor_head(tensor, parameters), "data": values}


def _parameters(of: Any) -> dict[str, Any]:
    parameters = {name: value for name, value in said_parameters(of.parameters).items() if name not in _OF_FORM}
    return {"parameters": parameters} if parameters else {}


@lru_cache(maxsize=1024)
def media_type_of(headers: bytes) -> str | None:
    """Return what an answer's headers say of its body; most answers of a version have the same ones."""
    kind, length = _header(headers, b"content-type"), _header(headers, _LENGTH_HEADER)
    return kind if kind is None or length is None else media_type(kind, length)


def _header(lines: bytes, name: bytes) -> str | None:
    _, found, rest = (b"\r\n" + lines).rpartition(b"\r\n%b: " % name)
    return rest.partition(b"\r\n")[0].decode("latin-1") if found else None
