"""Requests and responses between REST and gRPC: nothing is lost on the way there and back, for every datatype."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marway.errors import InvalidRequest, MarwayError, ModelError
from marway.records import Signature, TensorSpec
from marway_http.message_fields import FIELDS_MAX, encoded, fields_of, parted
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import BYTES
from marway_http.tensors.tensor import Tensor
from marway_http.tensors.v2_parameters import OutputForms, add_parameters, plain_parameters
from marway_http.tensors.v2_protobuf import CONTENTS
from marway_http.tensors.v2_to_message import (
    header_length_of,
    message_of_piece,
    message_of_request,
    message_of_response,
)
from marway_http.tensors.v2_to_rest import (
    RestBody,
    piece_of_response,
    rest_of_request,
    rest_of_response,
    unread_bytes,
    with_names,
)
from support.tensors import bits, tensors

NAMES = {"name": "m", "version": "1.0"}


def request_of(*given: Tensor, raw: bool, **parameters: Any) -> pb.ModelInferRequest:
    """Return a message with these inputs, which asks for as many outputs."""
    message = pb.ModelInferRequest(model_name="m", model_version="1.0", id="mine")
    add_parameters(message.parameters, parameters)
    for index, tensor in enumerate(given):
        _add(message.inputs, tensor, raw, f"x{index}", message.raw_input_contents)
        message.outputs.add(name=f"x{index}")
    return message


def response_of(*given: Tensor, raw: bool, **parameters: Any) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="other", model_version="7", id="mine")
    add_parameters(message.parameters, parameters)
    for index, tensor in enumerate(given):
        _add(message.outputs, tensor, raw, f"x{index}", message.raw_output_contents)
    return message


def _add(target: Any, tensor: Tensor, raw: bool, name: str, contents: Any) -> None:
    made = target.add(name=name, datatype=tensor.datatype.name, shape=tensor.shape)
    if raw:
        contents.append(bits(tensor))
    else:
        getattr(made.contents, CONTENTS[tensor.datatype.name]).extend(tensor.values)


def is_typed(tensor: Tensor) -> bool:
    return tensor.datatype.name in CONTENTS


@settings(deadline=None)
@given(given_=st.lists(tensors(), min_size=1, max_size=3), typed=st.booleans())
def test_a_message_becomes_a_rest_request_and_a_message_again(given_: list[Tensor], typed: bool) -> None:
    """The binary tensors over REST are the message's own bytes, raw or of typed contents; back they are raw."""
    typed = typed and all(map(is_typed, given_))
    sent = request_of(*given_, raw=not typed, sequence_id=7, sequence_start=True, priority=3, timeout=2.5)
    body, length, raw = rest_of_request(sent.SerializeToString())
    assert raw is not typed
    document = json.loads(body[:length])
    assert document["parameters"] == {
        "sequence_id": 7,
        "sequence_start": True,
        "priority": 3,
        "timeout": 2.5,
        "binary_data_output": True,
    }
    assert [each["shape"] for each in document["inputs"]] == [list(each.shape) for each in given_]
    assert body[length:] == b"".join(map(bits, given_))
    message, forms = message_of_request(body, length, **NAMES)
    assert forms == OutputForms(binary=True)
    assert pb.ModelInferRequest.FromString(message) == request_of(
        *given_, raw=True, sequence_id=7, sequence_start=True, priority=3, timeout=2.5
    )


@settings(deadline=None)
@given(given_=st.lists(tensors(), min_size=1, max_size=3), typed=st.booleans(), typed_back=st.booleans())
def test_a_response_becomes_a_rest_response_and_a_message_again(
    given_: list[Tensor], typed: bool, typed_back: bool
) -> None:
    """A server's response, raw or typed, is the same over REST as binary, and comes back in the form that is wanted."""
    all_typed = all(map(is_typed, given_))
    sent = response_of(*given_, raw=not (typed and all_typed), triton_final_response=True).SerializeToString()
    wanted = response_of(*given_, raw=not (typed_back and all_typed), triton_final_response=True)
    wanted.model_name, wanted.model_version = "m", "1.0"
    body, length, _ = rest_of_response(sent, OutputForms(binary=True), **NAMES)
    assert pb.ModelInferResponse.FromString(message_of_response(body, length, raw=not typed_back)) == wanted
    piece = piece_of_response(sent, OutputForms(binary=True), **NAMES)
    assert pb.ModelInferResponse.FromString(message_of_piece(piece, raw=not typed_back)) == wanted


@settings(deadline=None)
@given(tensor=tensors())
def test_values_as_json(tensor: Tensor) -> None:
    """Outputs that are wanted as JSON hold the same values, and become the same bytes again."""
    sent = response_of(tensor, raw=True).SerializeToString()
    body, length, _ = rest_of_response(sent, OutputForms(named={"x0": False}, binary=True), **NAMES)
    assert length is None
    (output,) = json.loads(body)["outputs"]
    if "parameters" in output:
        assert (tensor.datatype, output["parameters"]) == (BYTES, {"content_type": "base64"})
        return
    back = pb.ModelInferResponse.FromString(message_of_response(body, None, raw=True))
    assert list(back.raw_output_contents) == [bits(tensor)]
    again = json.dumps({"inputs": [output]}).encode()
    message, forms = message_of_request(again, None, **NAMES)
    assert forms == OutputForms()
    assert list(pb.ModelInferRequest.FromString(message).raw_input_contents) == [bits(tensor)]


@settings(deadline=None)
@given(contents=st.lists(st.binary(max_size=300), max_size=4), others=st.binary(max_size=20))
def test_messages_are_parted_without_parsing_them(contents: list[bytes], others: bytes) -> None:
    """The fields of one number are found, wherever they are; the message without them is one too."""
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=contents, id=others.hex())
    data = message.SerializeToString()
    rest, found = parted(data, 7)
    assert [bytes(each) for each in found] == contents
    assert pb.ModelInferRequest.FromString(rest) == pb.ModelInferRequest(model_name="m", id=others.hex())
    put_together = b"".join([rest, *(part for each in contents for part in (encoded(7, len(each)), each))])
    assert pb.ModelInferRequest.FromString(put_together) == message
    assert sum(field.end - field.start for field in fields_of(data)) == len(data)
    if not contents:
        assert rest is data


def test_bytes_that_are_passed_on_unread() -> None:
    """Raw contents are counted, whatever else a message holds."""
    message = pb.ModelInferRequest(model_name="m" * 500, raw_input_contents=[b"x" * 70_000, b"yy"])
    assert unread_bytes(message.SerializeToString()) == 70_002


def test_a_raw_binary_request() -> None:
    """A body that is the data of the one input gets the input's name and shape from the signature."""
    takes = Signature(inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),))
    message, forms = message_of_request(b"\0" * 8, 0, **NAMES, signature=takes)
    made = pb.ModelInferRequest.FromString(message)
    assert (made.inputs[0].shape, list(made.raw_input_contents), forms.binary) == ([1, 2], [b"\0" * 8], True)
    text = Signature(inputs=(TensorSpec(name="x", datatype="BYTES", shape=(1,)),))
    message, _ = message_of_request(b"abc", 0, **NAMES, signature=text)
    assert list(pb.ModelInferRequest.FromString(message).raw_input_contents) == [b"\x03\0\0\0abc"]
    with pytest.raises(InvalidRequest, match="this signature has no inputs"):
        message_of_request(b"abc", 0, **NAMES)


def test_forms_of_outputs() -> None:
    """What a REST request says of its outputs is kept for the response, and not said to the server."""
    asked = {
        "inputs": [],
        "parameters": {"binary_data_output": True, "sequence_id": "s"},
        "outputs": [{"name": "a", "parameters": {"binary_data": False, "classification": 2}}, {"name": "b"}],
    }
    message, forms = message_of_request(json.dumps(asked).encode(), None, **NAMES)
    assert (forms.wants_binary("a"), forms.wants_binary("b")) == (False, True)
    made = pb.ModelInferRequest.FromString(message)
    assert plain_parameters(made.parameters) == {"sequence_id": "s"}
    assert [(each.name, plain_parameters(each.parameters)) for each in made.outputs] == [
        ("a", {"classification": 2}),
        ("b", {}),
    ]


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b'{"model_name":"mv_1","model_version":"1","outputs":[{"name":"y","data":[1e5]}]}', None),
        (b'{"id":"a","model_name":"mv_1","model_version":"1","outputs":[]}BINARY', 63),
        (b'{ "outputs": [], "model_version": "1", "model_name": "m\\"v_1" }', None),
        (b'{"model_name":"m\\"v","outputs":[]}xx', 34),
    ],
)
def test_the_callers_names(body: bytes, length: int | None) -> None:
    """A response says the names by which its caller knows the version, and is else as it was."""
    changed = with_names(body, length, **NAMES)
    before = json.loads(body[:length])
    assert json.loads(changed.body[: changed.header_length]) == {
        **before,
        "model_name": "m",
        "model_version": "1.0",
    }
    if length is not None:
        assert changed.body[changed.header_length :] == body[length:]


def test_parameters_that_servers_alone_know() -> None:
    """Lists and objects among a response's parameters go as the text of their JSON; in a request they are refused."""
    body = b'{"model_name":"m","outputs":[],"parameters":{"headers":{"a":"b"},"n":null}}'
    message = pb.ModelInferResponse.FromString(message_of_response(body, None, raw=True))
    assert plain_parameters(message.parameters) == {"headers": '{"a": "b"}'}
    with pytest.raises(InvalidRequest, match="over gRPC a parameter is a text"):
        message_of_request(b'{"inputs":[],"parameters":{"a":{}}}', None, **NAMES)


def _typed(datatype: str, **contents: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype=datatype, shape=[1]).contents.MergeFrom(pb.InferTensorContents(**contents))
    return message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (_typed("FP16"), "no typed contents"),
        (_typed("INT8", int_contents=[300]), "its element 0, 300, is none"),
        (_typed("INT8", int64_contents=[3]), "its values belong in int_contents"),
        (_typed("FLOAT"), "no known datatype"),
        (pb.ModelInferRequest(raw_input_contents=[b"a"]), "0 inputs and 1 raw_input_contents"),
        (b"\x0a\x05a", "cut off"),
        (b"\x0a\x01\xff", "cannot be parsed"),
        (b"\x12\x00" * (FIELDS_MAX + 1), "more than"),
    ],
)
def test_messages_that_are_no_requests(message: pb.ModelInferRequest | bytes, said: str) -> None:
    """What cannot become a request is the caller's fault, and says what is wrong."""
    with pytest.raises(InvalidRequest, match=said):
        rest_of_request(message if isinstance(message, bytes) else message.SerializeToString())


X = {"name": "x", "datatype": "FP32", "shape": [1]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "no list of inputs"),
        ({"inputs": [{}]}, "input 0 has no name"),
        ({"inputs": [{"name": "x", "datatype": "FP32"}]}, "no shape"),
        ({"inputs": [{**X, "shape": [-1]}]}, "no shape"),
        ({"inputs": [X]}, "no list under data"),
        ({"inputs": [{**X, "data": [1, 2]}]}, "2 elements"),
        ({"inputs": [{**X, "data": [1], "parameters": {"binary_data_size": 4}}]}, "both data and"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 4}}]}, "0 bytes of binary data are left"),
        ({"inputs": [], "id": 3}, "no text"),
        ({"inputs": [], "outputs": [{}]}, "output 0 has no name"),
        ({"inputs": [], "parameters": 3}, "no object"),
    ],
)
def test_rest_requests_that_are_none(document: dict[str, Any], said: str) -> None:
    """What is no request of the protocol says so before a server is asked over gRPC."""
    with pytest.raises(InvalidRequest, match=said):
        message_of_request(json.dumps(document).encode(), None, **NAMES)


@pytest.mark.parametrize("text", ["-1", "x", "6", "²"])
def test_header_lengths_that_are_none(text: str) -> None:
    """A header length is a number of bytes that the body has."""
    with pytest.raises(InvalidRequest, match="Inference-Header-Content-Length"):
        header_length_of(text, b"12345")
    assert (header_length_of("5", b"12345"), header_length_of(None, b"")) == (5, None)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"outputs": 3}', b'{"outputs": [{"name": "x"}]}', b"[]"])
def test_answers_that_are_no_responses(body: bytes) -> None:
    """What a server answered that is no response is the server's fault."""
    with pytest.raises(MarwayError, match="the model server's answer cannot be read"):
        message_of_response(body, None, raw=True)
    with pytest.raises(MarwayError, match="the model server's answer cannot be read"):
        rest_of_response(b"\x0a\xff", OutputForms(), **NAMES)


def test_errors_among_pieces() -> None:
    """A piece that is an error is the model's error, in the server's words."""
    with pytest.raises(ModelError, match=r"^too many$"):
        message_of_piece(b'{"error":"too many"}\n', raw=True)


def test_both_or_neither() -> None:
    """All outputs of a response over gRPC are raw, or none is; a request that asks for both is refused."""
    message = request_of(raw=True)
    add_parameters(message.outputs.add(name="a").parameters, {"binary_data": True})
    assert rest_of_request(message.SerializeToString()).raw
    add_parameters(message.outputs.add(name="b").parameters, {"binary_data": False})
    with pytest.raises(InvalidRequest, match="all are raw, or none is"):
        rest_of_request(message.SerializeToString())
    assert isinstance(rest_of_response(b"", OutputForms(), **NAMES), RestBody)
