"""Open Inference REST bodies as messages: a server's response for a gRPC caller, and a caller's request for a server.

Binary tensors and `raw_…_contents` are the same bytes: they are copied once, and nothing here looks at them. Values
that came as JSON are written anew. Nothing here knows what a version takes or which parameters mean something.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from marway.errors import InvalidRequest, MarwayError, ModelError, clip
from marway.records import Signature
from marway_http.message_fields import encoded
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import DATATYPES, datatype_of
from marway_http.tensors.tensor import flat_values, json_object
from marway_http.tensors.v2_json import raw_input_of
from marway_http.tensors.v2_parameters import ALL_BINARY, BINARY, SIZE, OutputForms, add_parameters
from marway_http.tensors.v2_protobuf import CONTENTS

__all__ = ["HEADER_LENGTH", "header_length_of", "message_of_piece", "message_of_request", "message_of_response"]

HEADER_LENGTH: Final = "inference-header-content-length"
"""Header of a body that has binary tensors behind its JSON: the bytes of that."""
_MESSAGE_MAX: Final = 1000
_RAW_INPUTS: Final = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW_OUTPUTS: Final = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number


def header_length_of(text: str | None, body: bytes) -> int | None:
    """Return an `Inference-Header-Content-Length` as a number; None where none was sent.

    Raises:
        InvalidRequest: It is no number of bytes that the body has.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {clip(text, 40)!r}: give the number of bytes of the body's JSON, 1 to "
            f"{len(body)}, or 0 for a body that is the data of one input"
        )
    return int(text)


def message_of_request(
    body: bytes, header_length: int | None, *, name: str, version: str = "", signature: Signature | None = None
) -> tuple[bytes, OutputForms]:
    """Return a REST request as a `ModelInferRequest` with raw contents, and in which form its outputs are wanted.

    Args:
        body: All of it.
        header_length: As `header_length_of` gives it.
        name: What the server calls the model.
        version: Its version there; "" leaves that to the server.
        signature: What the version takes: needed for a raw binary request (0 as header length) alone.

    Raises:
        InvalidRequest: It is no request of the protocol.
    """
    request = pb.ModelInferRequest(model_name=name, model_version=version)
    if header_length == 0:
        spec, datatype, shape = raw_input_of(len(body), signature or Signature())
        request.inputs.add(name=spec, datatype=datatype.name, shape=shape)
        before = len(body).to_bytes(4, "little") if datatype.kind is bytes else b""
        length = encoded(_RAW_INPUTS, len(before) + len(body))
        return b"".join([request.SerializeToString(), length, before, body]), OutputForms(binary=True)
    document, data = _parted(body, header_length)
    request_id, inputs = document.get("id"), document.get("inputs")
    if not isinstance(request_id, str | None):
        raise InvalidRequest("the request's id is no text")
    if not isinstance(inputs, list):
        raise InvalidRequest("the request has no list of inputs, each with name, shape, datatype and data")
    request.id = request_id or ""
    sections: list[bytes | memoryview] = []
    for index, each in enumerate(inputs):
        where = f"input {index}"
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise InvalidRequest(f"{where} has no name")
        where = f"input {clip(each['name'], 100)!r}"
        sides = each.get("shape")
        if not isinstance(sides, list) or not all(type(side) is int and 0 <= side < 2**63 for side in sides):
            raise InvalidRequest(f"{where} has no shape: give a list of whole numbers, 0 or more")
        parameters = _parameters(each, where)
        section, data = _section(each, parameters, data, where)
        tensor = request.inputs.add(name=each["name"], datatype=str(each.get("datatype")), shape=sides)
        add_parameters(tensor.parameters, parameters)
        sections += (encoded(_RAW_INPUTS, len(section)), section)
    if len(data):
        raise InvalidRequest(
            f"{len(data)} bytes are left after the last binary tensor: a binary_data_size is too small"
        )
    parameters = _parameters(document, "the request")
    forms = OutputForms(bool(parameters.pop(ALL_BINARY, None)), _outputs(request, document))
    add_parameters(request.parameters, parameters)
    return b"".join([request.SerializeToString(), *sections]), forms


def message_of_response(body: bytes, header_length: int | None, *, raw: bool) -> bytes:
    """Return a REST response as a `ModelInferResponse`.

    Args:
        body: All of it.
        header_length: Bytes of its JSON; None where all of it is.
        raw: Whether with `raw_output_contents`; typed contents otherwise, where all outputs' datatypes have such.

    Raises:
        ModelError: It is an error, in the server's words.
        MarwayError: It is no response of the protocol.
    """
    try:
        document, data = _parted(body, header_length)
        if isinstance(document.get("error"), str):
            raise ModelError(clip(document["error"], _MESSAGE_MAX))
        response = pb.ModelInferResponse(
            model_name=document.get("model_name") or "",
            model_version=document.get("model_version") or "",
            id=document.get("id") or "",
        )
        add_parameters(response.parameters, document.get("parameters") or {}, lenient=True)
        outputs = document["outputs"]
        raw = raw or any(each["datatype"] not in CONTENTS for each in outputs)
        sections: list[bytes | memoryview] = []
        for index, each in enumerate(outputs):
            parameters = dict(each.get("parameters") or {})
            section, data = _section(each, parameters, data, f"output {index}")
            output = response.outputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
            add_parameters(output.parameters, parameters, lenient=True)
            if raw:
                sections += (encoded(_RAW_OUTPUTS, len(section)), section)
            else:
                datatype, count = DATATYPES[each["datatype"]], math.prod(each["shape"])
                values = datatype.unpack(section, count=count, where=f"output {index}")
                getattr(output.contents, CONTENTS[datatype.name]).extend(values)
        if len(data):
            raise InvalidRequest(f"{len(data)} bytes are left after the last output")
    except (InvalidRequest, KeyError, TypeError, ValueError, AttributeError) as exc:
        why = exc.message if isinstance(exc, InvalidRequest) else repr(exc)
        raise MarwayError(f"the model server's answer cannot be read: {clip(why, 300)}") from exc
    return b"".join([response.SerializeToString(), *sections])


def message_of_piece(piece: bytes, *, raw: bool) -> bytes:
    """Return one piece of a streamed answer (`marway_http.tensors.v2_to_rest.piece_of_response`) as a message.

    Arguments and errors as `message_of_response` has them.
    """
    text, newline, _ = piece.partition(b"\n")
    return message_of_response(piece, len(text) + len(newline), raw=raw)


def _section(
    tensor: Mapping[str, Any], parameters: dict[str, Any], data: memoryview, where: str
) -> tuple[bytes | memoryview, memoryview]:
    """Return a tensor's bytes, and what is left of the binary data; its size is taken from its parameters."""
    size = parameters.pop(SIZE, None)
    if size is None:
        datatype = datatype_of(tensor.get("datatype"), where=where)
        # Strings go as they are, whatever `content_type` says of them: that is for the server.
        return datatype.pack(flat_values(tensor.get("data"), datatype, tuple(tensor["shape"]), {}, where=where)), data
    if "data" in tensor:
        raise InvalidRequest(f"{where} has both data and binary_data_size")
    if type(size) is not int or not 0 <= size <= len(data):
        raise InvalidRequest(
            f"{where} has the binary_data_size {clip(repr(size), 40)}: {len(data)} bytes of binary data are left"
        )
    return data[:size], data[size:]


def _outputs(request: pb.ModelInferRequest, document: Mapping[str, Any]) -> dict[str, bool]:
    """Add the outputs that a REST request wants to a message; return of which it says whether as binary."""
    wanted = document.get("outputs")
    if not isinstance(wanted, list | None):
        raise InvalidRequest("outputs is no list")
    named: dict[str, bool] = {}
    for index, each in enumerate(wanted or ()):
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise InvalidRequest(f"output {index} has no name")
        parameters = _parameters(each, f"output {index}")
        binary = parameters.pop(BINARY, None)
        if binary is not None:
            named[each["name"]] = bool(binary)
        add_parameters(request.outputs.add(name=each["name"]).parameters, parameters)
    return named


def _parameters(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    parameters = raw.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InvalidRequest(f"{where} has parameters that are no object")
    return dict(parameters or {})


def _parted(body: bytes, header_length: int | None) -> tuple[dict[str, Any], memoryview]:
    text = body if header_length is None else body[:header_length]
    # Servers and their clients write NaN where a number is none, which JSON has not.
    return json_object(text, nonfinite=True), memoryview(body)[len(text) :]
