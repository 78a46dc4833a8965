"""Rows that are no requests of a tensor protocol, for servers that take tensors, and outputs as plain values."""

from __future__ import annotations

from typing import Any

import pytest

from marway.errors import InvalidRequest
from marway.records import TensorSpec
from marway.wire.envelope import Part, Row
from marway_http.tensors.datatypes import DATATYPES
from marway_http.tensors.plain_rows import UNNAMED, tensors_of_row, value_of_outputs
from marway_http.tensors.tensor import Tensor

JSON, TEXT, OCTETS = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
ONE = TensorSpec(name="one", datatype="BYTES", shape=(1,))
MANY = TensorSpec(name="many", datatype="BYTES", shape=(-1, 1))


def raw(body: bytes, content_type: str = JSON) -> Row:
    return Row("r", [Part("data", body, content_type)], {"content-type": content_type})


def form(**parts: tuple[bytes, str]) -> Row:
    values = [Part(name, value, kind) for name, (value, kind) in parts.items()]
    return Row("r", values, {"content-type": "multipart/form-data; boundary=x"})


@pytest.mark.parametrize(
    ("row", "inputs", "shape", "values", "alone"),
    [
        (raw(b"[1, 2.5]"), [X], (1, 2), [1.0, 2.5], True),
        (raw(b"[[1, 2], [3, 4]]"), [X], (2, 2), [1.0, 2.0, 3.0, 4.0], False),
        (raw(b'{"x": [1, 2]}'), [X], (1, 2), [1.0, 2.0], True),
        (raw(b"[1, 2]", TEXT), [X], (1, 2), [1.0, 2.0], True),
        (raw(b"\0\0\x80?\0\0\0@", OCTETS), [X], (1, 2), [1.0, 2.0], True),
        (raw(b"hi", TEXT), [ONE], (1,), [b"hi"], True),
        (raw(b'"hi"'), [ONE], (1,), [b"hi"], True),
        (raw(b'{"a": 1}'), [ONE], (1,), [b'{"a": 1}'], True),
        (raw(b'{"b64": "AP8="}'), [ONE], (1,), [b"\0\xff"], True),
        (raw(b"hi", TEXT), [MANY], (1, 1), [b"hi"], True),
        (raw(b'["a", "b"]'), [TensorSpec(name="t", datatype="BYTES", shape=(-1,))], (2,), [b"a", b"b"], False),
        (raw(b"\xff\xd8", "image/jpeg"), [MANY], (1, 1), [b"\xff\xd8"], True),
        (raw(b"hi", TEXT), [], (1,), [b"hi"], True),
        (raw(b"[[1, 2], [3, 4]]"), [], (2, 2), [1, 2, 3, 4], False),
    ],
)
def test_a_row_is_the_tensor_of_the_one_input(
    row: Row, inputs: list[TensorSpec], shape: tuple[int, ...], values: list[Any], alone: bool
) -> None:
    """Its shape is the input's, with a first dimension of 1 where the value lacks one; without metadata its own."""
    (tensor,), made_alone = tensors_of_row(row, inputs)
    assert tensor.name == (inputs[0].name if inputs else UNNAMED)
    assert (tensor.shape, list(tensor.values), made_alone) == (shape, values, alone)


@pytest.mark.parametrize(
    "row",
    [
        raw(b'{"x": [1, 2], "one": "a"}'),
        form(x=(b"[1, 2]", JSON), one=(b"a", TEXT)),
        form(x=(b"[1, 2]", TEXT), one=(b"a", TEXT)),
    ],
)
def test_several_inputs_are_given_by_name(row: Row) -> None:
    """A JSON object or a form has each input under its name."""
    tensors, _ = tensors_of_row(row, [X, ONE])
    assert {tensor.name: list(tensor.values) for tensor in tensors} == {"x": [1.0, 2.0], "one": [b"a"]}


@pytest.mark.parametrize(
    ("row", "inputs", "said"),
    [
        (raw(b"[1, 2, 3]"), [X], r"input 'x' has the shape \[3\]: the model takes FP32 of the shape \[-1, 2\]"),
        (raw(b"3"), [X], "input 'x' has a single value"),
        (raw(b"[[1], [2, 3]]"), [X], "lists of several lengths"),
        (raw(b'["a", "b"]'), [X], "input 'x' is FP32; its element 0, 'a', is none"),
        (raw(b"hello", TEXT), [X], r"takes FP32 of the shape \[-1, 2\]: send its values as JSON, such as \[0, 0\]"),
        (raw(b"123", OCTETS), [X], "3 bytes: 2 elements of FP32 have 8"),
        (raw(b"[1, 2]"), [X, ONE], "takes 2 inputs, x, one: send a JSON object or a form"),
        (form(y=(b"1", TEXT)), [X], "no input 'y': it takes x"),
        (raw(b"{", JSON), [ONE], "the body is no JSON"),
        (raw(b'[1, "a"]'), [], "values of several kinds"),
        (raw(b'{"b64": "?"}'), [ONE], "no base64"),
    ],
)
def test_what_is_no_tensor_is_refused(row: Row, inputs: list[TensorSpec], said: str) -> None:
    """What cannot be the input is refused in a sentence that says what is wanted."""
    with pytest.raises(InvalidRequest, match=said):
        tensors_of_row(row, inputs)


def tensor(name: str, datatype: str, shape: tuple[int, ...], values: list[Any]) -> Tensor:
    return Tensor(name, DATATYPES[datatype], shape, values)


@pytest.mark.parametrize(
    ("outputs", "alone", "value"),
    [
        ([tensor("y", "FP32", (1, 2), [1.0, 2.0])], True, [1.0, 2.0]),
        ([tensor("y", "FP32", (1, 2), [1.0, 2.0])], False, [[1.0, 2.0]]),
        ([tensor("y", "INT64", (1,), [7])], True, 7),
        ([tensor("y", "BYTES", (1,), [b"hi"])], False, b"hi"),
        ([tensor("y", "BYTES", (1, 1), [b"hi"])], True, b"hi"),
        ([tensor("y", "BYTES", (2,), [b"a", b"\xff"])], False, ["a", {"b64": "/w=="}]),
        ([tensor("y", "FP32", (0, 2), [])], False, []),
        ([tensor("a", "BOOL", (1,), [True]), tensor("b", "BYTES", (1,), [b"t"])], True, {"a": True, "b": "t"}),
    ],
)
def test_outputs_are_plain_values(outputs: list[Tensor], alone: bool, value: Any) -> None:
    """One output is its value, several are an object by name; a batch that was made of one row is none any more."""
    assert value_of_outputs(outputs, alone=alone) == value
