"""Open Inference messages as REST bodies: a caller's request for the pod, and a server's response for a REST caller.

Binary tensors and `raw_…_contents` are the same bytes: they are copied once, and nothing here looks at them. What was
typed contents is written anew. Nothing here knows what a version takes or which parameters mean something.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from marway.errors import InvalidRequest, MarwayError, clip
from marway_http.message_fields import fields_of, parted
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import Datatype, datatype_of
from marway_http.tensors.tensor import BASE64, json_object
from marway_http.tensors.v2_parameters import ALL_BINARY, BINARY, SIZE, OutputForms, plain_parameters
from marway_http.tensors.v2_protobuf import CONTENTS

__all__ = [
    "RestBody",
    "RestRequest",
    "error_piece",
    "parameters_of",
    "piece_of_response",
    "rest_of_request",
    "rest_of_response",
    "said_parameters",
    "tensor_head",
    "unread_bytes",
    "values_as_json",
    "with_names",
]

_TEXT: Final = rb'"[^"\\]*"'
_NAMES: Final = re.compile(rb'(\{(?:"id":%b,)?)"model_name":%b,"model_version":%b' % (_TEXT, _TEXT, _TEXT))
"""How Triton and MLServer begin a response."""
_PARAMETERS: Final = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["parameters"].number
_RAW_INPUTS: Final = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW_OUTPUTS: Final = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number


class RestBody(NamedTuple):
    """A response over REST.

    Attributes:
        body: JSON, and then its binary tensors.
        header_length: Bytes of JSON (`Inference-Header-Content-Length`); None where all of it is JSON.
        rows: Rows of the call that it came of, with those of others that went along; None where nobody knows.
    """

    body: bytes
    header_length: int | None
    rows: int | None = None


class RestRequest(NamedTuple):
    """A request that came as a message.

    Attributes:
        body, header_length: JSON and its length, and the binary tensors; outputs are asked for as binary.
        raw: Whether its caller wants `raw_output_contents`, else typed ones.
    """

    body: bytes
    header_length: int
    raw: bool


def unread_bytes(message: bytes) -> int:
    """Return how many bytes of a request's message `rest_of_request` passes on as they are.

    Raises:
        InvalidRequest: It is no message, or has too many fields.
    """
    return sum(map(len, parted(message, _RAW_INPUTS)[1]))


def parameters_of(message: bytes) -> dict[str, Any]:
    """Return the parameters of a request's message, whose inputs are not looked at; None for one without a value.

    Raises:
        InvalidRequest: It is no message, or has too many fields.
    """
    own = b"".join(message[each.start : each.end] for each in fields_of(message) if each.number == _PARAMETERS)
    try:
        return plain_parameters(pb.ModelInferRequest.FromString(own).parameters)
    except DecodeError:
        raise InvalidRequest("the message cannot be parsed") from None


def rest_of_request(message: bytes, *, dropped: Container[str] = ()) -> RestRequest:
    """Return a `ModelInferRequest` as a REST request.

    Args:
        message: All of it.
        dropped: Parameters of the request that go no further.

    Raises:
        InvalidRequest: It cannot be parsed; its contents are of another number or datatype than its inputs; or some
            outputs are wanted as binary and some are not, which no response can be.
    """
    head, raw = parted(message, _RAW_INPUTS)
    try:
        request = pb.ModelInferRequest.FromString(head)
    except DecodeError:
        raise InvalidRequest("the message cannot be parsed") from None
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(f"the request has {len(request.inputs)} inputs and {len(raw)} raw_input_contents")
    inputs: list[dict[str, Any]] = []
    sections: list[bytes | memoryview] = []
    for index, each in enumerate(request.inputs):
        where = f"input {clip(each.name, 100)!r}"
        if raw and each.contents.ListFields():  # a client may set the field and leave it empty
            raise InvalidRequest(f"{where} has contents beside raw_input_contents")
        section = raw[index] if raw else _packed(each, where)
        sections.append(section)
        parameters = {**said_parameters(each.parameters), SIZE: len(section)}
        inputs.append(tensor_head(each, parameters))
    parameters = {name: value for name, value in said_parameters(request.parameters).items() if name not in dropped}
    asked = parameters.pop(ALL_BINARY, None)
    forms = {bool(raw) if asked is None else bool(asked)}
    outputs, wanted = [], set()
    for output in request.outputs:
        own = said_parameters(output.parameters)
        wanted.add(own.pop(BINARY, None))
        outputs.append({"name": output.name, **({"parameters": own} if own else {})})
    if wanted:
        forms = {each if isinstance(each, bool) else next(iter(forms)) for each in wanted}
    if len(forms) > 1:
        raise InvalidRequest(
            "some outputs are wanted as binary and some are not: over gRPC all are raw, or none is, so give all the "
            "same binary_data, or the request binary_data_output"
        )
    document: dict[str, Any] = {"id": request.id} if request.id else {}
    document["parameters"] = {**parameters, ALL_BINARY: True}
    document["inputs"] = inputs
    if outputs:
        document["outputs"] = outputs
    text = _json(document)
    return RestRequest(b"".join([text, *sections]), len(text), forms.pop())


def rest_of_response(message: bytes, forms: OutputForms, *, name: str, version: str) -> RestBody:
    """Return a `ModelInferResponse` as a REST response.

    Args:
        message: As the server sent it.
        forms: In which form outputs are wanted.
        name: What the caller calls the model.
        version: What the caller calls the version.

    Raises:
        MarwayError: It is none.
    """
    text, sections = _rest(message, forms, name, version)
    return RestBody(b"".join([text, *sections]), len(text)) if sections else RestBody(text, None)


def piece_of_response(message: bytes, forms: OutputForms, *, name: str, version: str) -> bytes:
    """Return a `ModelInferResponse` as one piece of a streamed answer: its JSON, a newline, and its binary tensors.

    Compact JSON has no newline within, so the first one ends it. Arguments and errors as `rest_of_response` has them.
    """
    text, sections = _rest(message, forms, name, version)
    return b"".join([text, b"\n", *sections])


def error_piece(message: str) -> bytes:
    """Return the piece that says that one of several responses to a request is an error."""
    return _json({"error": message}) + b"\n"


def with_names(body: bytes, header_length: int | None, *, name: str, version: str) -> RestBody:
    """Return a REST response with the caller's names in the place of the server's.

    Args:
        body: All of it.
        header_length: Bytes of its JSON; None where all of it is.
        name: What the caller calls the model.
        version: What the caller calls the version.

    Raises:
        MarwayError: It is no response of the protocol.
    """
    text = body if header_length is None else body[:header_length]
    names = b'"model_name":%b,"model_version":%b' % (_json(name), _json(version))
    found = _NAMES.match(text)
    if found is not None:  # as servers write it: then the data behind it need not be read
        changed = b"".join([found[1], names, text[found.end() :]])
    else:
        try:
            document = json_object(text, nonfinite=True)
        except InvalidRequest as exc:
            raise MarwayError(f"the model server's answer cannot be read: {clip(exc.message, 300)}") from exc
        changed = _json({**document, "model_name": name, "model_version": version})
    if header_length is None:
        return RestBody(changed, None)
    return RestBody(b"".join([changed, memoryview(body)[header_length:]]), len(changed))


def _rest(message: bytes, forms: OutputForms, name: str, version: str) -> tuple[bytes, list[bytes | memoryview]]:
    """Return a response's JSON and its binary tensors."""
    try:
        head, raw = parted(message, _RAW_OUTPUTS)
        response = pb.ModelInferResponse.FromString(head)
        if raw and len(raw) != len(response.outputs):
            raise InvalidRequest(f"it has {len(response.outputs)} outputs and {len(raw)} raw_output_contents")
        document: dict[str, Any] = {"model_name": name, "model_version": version}
        if response.id:
            document["id"] = response.id
        if response.parameters:
            document["parameters"] = said_parameters(response.parameters)
        outputs: list[dict[str, Any]] = []
        sections: list[bytes | memoryview] = []
        for index, each in enumerate(response.outputs):
            where = f"output {clip(each.name, 100)!r}"
            section = raw[index] if raw else _packed(each, where)
            parameters = said_parameters(each.parameters)
            if forms.wants_binary(each.name):
                sections.append(section)
                outputs.append(tensor_head(each, {**parameters, SIZE: len(section)}))
                continue
            datatype, count = datatype_of(each.datatype, where=where), math.prod(each.shape)
            data = values_as_json(datatype.unpack(section, count=count, where=where), datatype, parameters)
            outputs.append({**tensor_head(each, parameters), "data": data})
    except (DecodeError, InvalidRequest) as exc:
        why = exc.message if isinstance(exc, InvalidRequest) else "it is no message of the protocol"
        raise MarwayError(f"the model server's answer cannot be read: {clip(why, 300)}") from exc
    return _json({**document, "outputs": outputs}), sections


def said_parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    """Return the parameters that have a value."""
    return {name: value for name, value in plain_parameters(parameters).items() if value is not None}


def tensor_head(tensor: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON says of a message's tensor beside its values."""
    told = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    return {**told, "parameters": dict(parameters)} if parameters else told


def _packed(tensor: Any, where: str) -> bytes:
    """Return the bytes of a tensor that has typed contents.

    Raises:
        InvalidRequest: They are another datatype's, or none of its values.
    """
    datatype = datatype_of(tensor.datatype, where=where)
    wanted = CONTENTS.get(datatype.name)
    if wanted is None:
        raise InvalidRequest(f"{where} is {datatype.name}, which has no typed contents: send raw_input_contents")
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled not in ([], [wanted]):
        raise InvalidRequest(f"{where} is {datatype.name} and has {', '.join(filled)}: its values belong in {wanted}")
    values = getattr(tensor.contents, wanted)
    if datatype.kind is int and (index := datatype.refused(values)) is not None:
        raise InvalidRequest(f"{where} is {datatype.name}; its element {index}, {values[index]}, is none")
    return datatype.pack(values)


def values_as_json(values: Sequence[Any], datatype: Datatype, parameters: dict[str, Any]) -> Sequence[Any]:
    """Return values as JSON has them; what is no text goes as base64, which the parameters then say."""
    if datatype.kind is not bytes:
        return values
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        parameters["content_type"] = BASE64
        return [base64.b64encode(value).decode() for value in values]


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
