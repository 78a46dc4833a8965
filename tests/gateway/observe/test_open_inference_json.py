"""Open Inference bodies as plain JSON: the same, whether they came as messages or with binary tensors."""

import json
import struct
from typing import Any

import pytest

from marway_gateway.observe.open_inference_json import (
    REQUEST_MESSAGE,
    RESPONSE_MESSAGE,
    media_type,
    plain_request,
    plain_response,
)
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.rows import JSON, OCTETS
from marway_http.tensors.v2_parameters import OutputForms
from marway_http.tensors.v2_to_rest import rest_of_request, rest_of_response

FLOATS = struct.pack("<3f", 0.5, float("nan"), -2)
WORDS = b"\x02\0\0\0hi\x01\0\0\0\xff"


def request(*, raw: bool) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="m", id="7")
    made.parameters["priority"].int64_param = 3
    made.inputs.add(name="x", datatype="FP32", shape=(1, 3))
    made.inputs.add(name="words", datatype="BYTES", shape=(2,))
    if raw:
        made.raw_input_contents.extend([FLOATS, WORDS])
    else:
        made.inputs[0].contents.fp32_contents.extend(struct.unpack("<3f", FLOATS))
        made.inputs[1].contents.bytes_contents.extend([b"hi", b"\xff"])
    return made


SAID: dict[str, Any] = {
    "id": "7",
    "parameters": {"priority": 3},
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0.5, None, -2.0]},
        {
            "name": "words",
            "datatype": "BYTES",
            "shape": [2],
            "parameters": {"content_type": "base64"},
            "data": ["aGk=", "/w=="],
        },
    ],
}


@pytest.mark.parametrize("raw", [False, True])
def test_requests(raw: bool) -> None:
    """Typed, raw and binary requests are one document; what JSON has no number for is null."""
    message = request(raw=raw).SerializeToString()
    assert json.loads(plain_request(message, REQUEST_MESSAGE) or b"") == SAID
    body, length, _ = rest_of_request(message)
    assert json.loads(plain_request(body, media_type(OCTETS, str(length))) or b"") == SAID


def test_responses() -> None:
    """A response is one document as well, with the names of model and version."""
    made = pb.ModelInferResponse(model_name="m", model_version="1", id="7")
    made.outputs.add(name="y", datatype="INT64", shape=(2,))
    made.raw_output_contents.append(struct.pack("<2q", 1, 2))
    said = {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [2], "data": [1, 2]}],
    }
    message = made.SerializeToString()
    assert json.loads(plain_response(message, RESPONSE_MESSAGE) or b"") == said
    rest = rest_of_response(message, OutputForms(binary=True), name="m", version="1")
    assert json.loads(plain_response(rest.body, media_type(OCTETS, str(rest.header_length))) or b"") == said


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b'{"inputs":[]}', JSON),
        (b"\xff\xff", REQUEST_MESSAGE),
        (b"\xff\xff", RESPONSE_MESSAGE),
        (b"{}", media_type(OCTETS, "99")),
        (b"{}", media_type(OCTETS, "0")),
        (b"{}", media_type(OCTETS, "many")),
        (request(raw=True).SerializeToString() + b"\x3a\0", REQUEST_MESSAGE),
    ],
)
def test_what_is_none(body: bytes, media: str) -> None:
    """Other types, and bodies that are not what their type says, are left as they are."""
    assert plain_request(body, media) is None
    assert plain_response(body, media) is None
