"""The codec between tensors and rows: what goes in comes out, for every datatype, as JSON and as binary."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.handlers import answered, echo, value_of
from marway.errors import InvalidRequest, ModelError
from marway.records import Signature, TensorSpec, VersionRecord
from marway.wire.envelope import Answer, Row, decode_rows, encode_rows
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.datatypes import BYTES, DATATYPES
from marway_http.tensors.outputs import outputs_of, values_of
from marway_http.tensors.rows import rows_of
from marway_http.tensors.tensor import Tensor, shape_of
from marway_http.tensors.v2_json import parse_infer, render_infer
from marway_http.tensors.v2_protobuf import parse_message
from support.registry import record_of
from support.tensors import bits, tensors

NUMPY = {
    "BOOL": "?",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
}
RECORD = record_of(b"x")


def signature(datatype: str, *, rank: int, name: str = "y") -> Signature:
    spec = TensorSpec(name=name, datatype=datatype, shape=(-1,) * rank)
    return Signature(outputs=(spec,))


@settings(deadline=None)
@given(tensors())
def test_binary_round_trip(tensor: Tensor) -> None:
    """A tensor's bytes are read back as the same values, bit for bit."""
    data = bits(tensor)
    values = tensor.datatype.unpack(data, count=len(tensor.values), where="x")
    assert tensor.datatype.pack(values) == data
    assert values == tensor.values


@settings(deadline=None)
@given(tensors())
def test_our_bytes_are_numpys(tensor: Tensor) -> None:
    """What numpy calls the same datatype lies in the same bytes."""
    dtype = NUMPY.get(tensor.datatype.name)
    if dtype is not None:
        assert bits(tensor) == np.array(tensor.values, dtype).tobytes()


@pytest.mark.parametrize("binary", [False, True])
@settings(deadline=None)
@given(tensor=tensors())
def test_a_tensor_comes_back_through_an_echo(tensor: Tensor, binary: bool) -> None:
    """JSON and binary requests reach a handler that gives back what it gets, and come back equal in the same form."""
    document: dict[str, Any] = {"name": "x", "datatype": tensor.datatype.name, "shape": list(tensor.shape)}
    parameters: dict[str, Any] = {"binary_data_output": binary}
    data = b""
    if binary:
        data = bits(tensor)
        document["parameters"] = {"binary_data_size": len(data)}
    elif tensor.datatype is BYTES:
        document["data"] = [base64.b64encode(value).decode() for value in tensor.values]
        document["parameters"] = {"content_type": "base64"}
    else:
        document["data"] = list(tensor.values)
    text = json.dumps({"inputs": [document], "parameters": parameters}).encode()
    known = signature(tensor.datatype.name, rank=len(tensor.shape))
    request = parse_infer(text + data, header_length=str(len(text)) if binary else None, signature=known)
    assert bits(request.inputs[0]) == bits(tensor)
    rows = decode_rows(encode_rows(rows_of(request.inputs)))
    assert len(rows) == tensor.rows
    if tensor.datatype is BYTES and tensor.row_size != 1:
        return  # a row of several elements is a list, whose bytes that are no text stand in objects
    (output,) = outputs_of(values_of([echo(row) for row in rows], model="m", version="1"), known)
    assert (output.name, output.datatype) == ("y", tensor.datatype)
    assert bits(output) == bits(tensor)
    assert output.shape == (tensor.shape if tensor.datatype is not BYTES else (tensor.rows,))
    body, headers = render_infer([output], request, RECORD)
    described = json.loads(body[: int(dict(headers).get("inference-header-content-length", len(body)))])["outputs"][0]
    if binary:
        assert described["parameters"] == {"binary_data_size": len(data)}
        assert body[-len(data) :] == data or not data
    else:
        again = {**described, "name": "x"}
        back = parse_infer(json.dumps({"inputs": [again]}).encode(), header_length=None, signature=Signature())
        assert bits(back.inputs[0]) == bits(tensor)


@settings(deadline=None)
@given(tensors())
def test_nested_and_flat_json_are_the_same(tensor: Tensor) -> None:
    """A tensor's values may be nested as its shape says, or flat."""
    if tensor.datatype is BYTES or 0 in tensor.shape:
        return
    array = np.empty(len(tensor.values), object)
    array[:] = tensor.values
    shown = {"name": "x", "datatype": tensor.datatype.name, "shape": list(tensor.shape)}
    for data in (list(tensor.values), array.reshape(tensor.shape).tolist()):
        text = json.dumps({"inputs": [{**shown, "data": data}]}).encode()
        parsed = parse_infer(text, header_length=None, signature=Signature())
        assert bits(parsed.inputs[0]) == bits(tensor)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 6))
def test_bytes_that_are_no_elements_are_refused(data: bytes, count: int) -> None:
    """Whatever bytes a BYTES tensor has, they are its elements or an error, never anything else."""
    try:
        values = BYTES.unpack(data, count=count, where="x")
    except InvalidRequest:
        return
    assert len(values) == count
    assert BYTES.pack(values) == data


@pytest.mark.parametrize(
    "shape",
    [[1, 50_000_000, 0], [1, 2**26, 0], [1, 0, 2**62], [0, 2**40], [1, 100_000, 0], [1, 200_000, *[1] * 14]],
)
def test_no_shape_asks_for_more_lists_than_was_sent(shape: list[int]) -> None:
    """A dimension of 0, or many of 1, make no room for lists without number; the refusal comes at once."""
    data = [0] * math.prod(shape)
    document = {"inputs": [{"name": "a", "shape": shape, "datatype": "UINT8", "data": data}]}
    with pytest.raises(InvalidRequest, match=r"its dimensions give|lists for"):
        parse_infer(json.dumps(document).encode(), header_length=None, signature=Signature())
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="a", datatype="UINT8", shape=shape).contents.uint_contents.extend(data)
    with pytest.raises(InvalidRequest, match=r"its dimensions give|lists for"):
        parse_message(message, Signature())


@pytest.mark.parametrize("shape", [[1, 0], [3, 2, 0], [2, 1, 1, 1], [1, 1000, 0]])
def test_usual_shapes_with_dimensions_of_0_and_1_are_taken(shape: list[int]) -> None:
    """Nothing that people send is refused by that bound."""
    assert shape_of(shape, where="x") == tuple(shape)


def rows(*inputs: Tensor) -> list[Row]:
    return rows_of(inputs)


def test_what_a_row_of_one_input_is() -> None:
    """Numbers are JSON under `data`, text is text, other bytes are bytes, several elements of BYTES a list."""
    pairs = [
        (Tensor("x", DATATYPES["FP32"], (2, 2), [1.0, 2.5, 3.0, 4.0]), [[1.0, 2.5], [3.0, 4.0]]),
        (Tensor("x", DATATYPES["INT64"], (2,), [2**60, -1]), [2**60, -1]),
        (Tensor("x", DATATYPES["BOOL"], (1, 2), [True, False]), [[True, False]]),
        (Tensor("x", BYTES, (2,), ["für".encode(), b"\xff"]), ["für", b"\xff"]),
        (Tensor("x", BYTES, (2, 1), [b"a", b"b"]), ["a", "b"]),
        (Tensor("x", BYTES, (1, 2), [b"a", b"\xff"]), [["a", {"b64": "/w=="}]]),
    ]
    for tensor, expected in pairs:
        made = rows(tensor)
        assert [value_of(row.parts[0]) for row in made] == expected
        assert all(row.is_raw and row.headers["content-type"] == row.parts[0].content_type for row in made)


def test_several_inputs_are_named_parts() -> None:
    """Each row has a part for each input, as fields of a form are."""
    made = rows(Tensor("text", BYTES, (2,), [b"a", b"b"]), Tensor("top", DATATYPES["INT32"], (2, 1), [3, 4]))
    assert [{part.name: value_of(part) for part in row.parts} for row in made] == [
        {"text": "a", "top": [3]},
        {"text": "b", "top": [4]},
    ]
    assert not any(row.is_raw for row in made)
    assert made[0].headers == {"content-type": "multipart/form-data"}


def test_bytes_may_say_what_they_are() -> None:
    """The MIME type that a BYTES input names is its elements' content type."""
    (row,) = rows(Tensor("x", BYTES, (1,), [b'{"a": 1}'], "application/json"))
    assert value_of(row.parts[0]) == {"a": 1}


@pytest.mark.parametrize(
    ("values", "known", "expected"),
    [
        ([1.5, 2], None, ("output", "FP32", (2,), [1.5, 2.0])),
        ([16777217.0, 1.0], None, ("output", "FP64", (2,), [16777217.0, 1.0])),
        ([0.1], None, ("output", "FP64", (1,), [0.1])),
        ([0.10000000149011612], None, ("output", "FP32", (1,), [0.10000000149011612])),
        ([0.5, 16777217], None, ("output", "FP64", (2,), [0.5, 16777217.0])),
        ([0.5, 2**53 + 1], None, ("output", "BYTES", (2,), [b"0.5", b"9007199254740993"])),
        ([1e300, 1.0], None, ("output", "FP64", (2,), [1e300, 1.0])),
        ([[1, 2], [3, 4]], None, ("output", "INT64", (2, 2), [1, 2, 3, 4])),
        ([True, False], None, ("output", "BOOL", (2,), [True, False])),
        ([2**63, 1], None, ("output", "UINT64", (2,), [2**63, 1])),
        ([-(2**70)], None, ("output", "BYTES", (1,), [str(-(2**70)).encode()])),
        ([True, 1], None, ("output", "BYTES", (2,), [b"true", b"1"])),
        ([[1], [1, 2]], None, ("output", "BYTES", (2,), [b"[1]", b"[1, 2]"])),
        ([[1], 2], None, ("output", "BYTES", (2,), [b"[1]", b"2"])),
        ([[], []], None, ("output", "FP32", (2, 0), [])),
        (["a", b"\xff"], None, ("output", "BYTES", (2,), [b"a", b"\xff"])),
        ([{"label": "ü"}], None, ("output", "BYTES", (1,), ['{"label": "ü"}'.encode()])),
        ([None], None, ("output", "BYTES", (1,), [b"null"])),
        ([1, 0], signature("BOOL", rank=1), ("y", "BOOL", (2,), [True, False])),
        ([1.0, 2], signature("INT8", rank=1), ("y", "INT8", (2,), [1, 2])),
        ([1.5], signature("INT8", rank=1), ("y", "FP32", (1,), [1.5])),
        ([300], signature("INT8", rank=1), ("y", "INT64", (1,), [300])),
        ([[1, 2]], signature("BYTES", rank=1), ("y", "BYTES", (1,), [b"[1, 2]"])),
        ([["a", "b"]], signature("BYTES", rank=2), ("y", "BYTES", (1, 2), [b"a", b"b"])),
        ([["a", {"b64": "/w=="}]], signature("BYTES", rank=2), ("y", "BYTES", (1, 2), [b"a", b"\xff"])),
        ([["a", {"b64": "/"}]], signature("BYTES", rank=2), ("y", "BYTES", (1,), [b'["a", {"b64": "/"}]'])),
        ([["a", "b"]], signature("BYTES", rank=1), ("y", "BYTES", (1,), [b'["a", "b"]'])),
        ([{"y": 1}, {"y": 2}], signature("INT32", rank=1), ("y", "INT32", (2,), [1, 2])),
        ([{"y": 1}, {"z": 2}], signature("INT32", rank=1), ("y", "BYTES", (2,), [b'{"y": 1}', b'{"z": 2}'])),
    ],
)
def test_what_a_handler_may_return(values: list[Any], known: Signature | None, expected: tuple[Any, ...]) -> None:
    """Equal-shaped numbers are a tensor of the signature's datatype or of theirs, everything else is BYTES."""
    (made,) = outputs_of(values, known or Signature())
    assert (made.name, made.datatype.name, made.shape, list(made.values)) == expected


def test_several_outputs() -> None:
    """Objects whose keys are the signature's outputs are those outputs, in the signature's order."""
    specs = (TensorSpec(name="b", datatype="FP64", shape=(-1,)), TensorSpec(name="a", datatype="BYTES", shape=(-1,)))
    made = outputs_of([{"a": "x", "b": 1}, {"a": "y", "b": 2}], Signature(outputs=specs))
    assert [(each.name, each.datatype.name, list(each.values)) for each in made] == [
        ("b", "FP64", [1.0, 2.0]),
        ("a", "BYTES", [b"x", b"y"]),
    ]
    (one,) = outputs_of([{"a": "x"}], Signature(outputs=specs))
    assert (one.name, one.datatype.name) == ("output", "BYTES")


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (Answer(422, b"KeyError: 'x'", "error"), 422, "row 1: KeyError: 'x'"),
        (answered({"error": "no image"}, status=400), 400, "row 1: no image"),
        (answered("too long", status=413), 413, "row 1: too long"),
        (answered({"why": 1}, status=404), 404, 'row 1: {"why": 1}'),
        (answered(b"\xff", status=500), 500, "row 1: �"),
        (answered("", status=503), 503, "row 1: the model refused it"),
        (Answer(42, b"x", "error"), 500, "row 1: x"),
    ],
)
def test_a_refused_row_is_named(answer: Answer, status: int, says: str) -> None:
    """The first row that a handler refuses is the request's error, with its status and its words."""
    with pytest.raises(ModelError) as caught:
        values_of([answered("fine"), answer, answered("worse", status=500)], model="m", version="1")
    assert (caught.value.status, caught.value.message) == (status, says)


def test_a_single_row_needs_no_number() -> None:
    """The message of a request's only row is the handler's alone."""
    with pytest.raises(ModelError) as caught:
        values_of([answered("no", status=400)], model="m", version="1")
    assert caught.value.message == "no"


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (Answer(200, b"[1]", "text", "application/json"), [1]),
        (Answer(200, b"not json", "text", "application/json"), "not json"),
        (Answer(200, b"a,b", "bytes", "text/csv"), "a,b"),
        (Answer(200, b"\xff", "text"), b"\xff"),
        (Answer(200, b"\x89PNG", "bytes", "image/png"), b"\x89PNG"),
    ],
)
def test_what_an_answer_stands_for(answer: Answer, value: Any) -> None:
    """JSON is parsed and text is text, by what the handler returned and by the content type it set."""
    assert values_of([answer], model="m", version="1") == [value]


def test_numbers_that_json_has_not() -> None:
    """NaN and infinities go back as binary, and are an error where JSON was asked for."""
    values = values_of([Answer(200, b"[NaN, Infinity]", "json")], model="m", version="1")
    (made,) = outputs_of(values, Signature())
    assert made.datatype.name == "FP32"
    whole = Tensor("x", BYTES, (1,), [b""])
    as_json = parse_infer(
        b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [""]}]}',
        header_length=None,
        signature=Signature(),
    )
    assert as_json.inputs[0] == whole
    record = VersionRecord.model_validate(RECORD.model_dump())
    with pytest.raises(ModelError, match=r"row 0: the output 'output' is nan there.*ask for it as binary"):
        render_infer([made], as_json, record)
    text, _ = render_infer([made], as_json, record, nonfinite="null")
    assert json.loads(text)["outputs"][0]["data"] == [None, None]
