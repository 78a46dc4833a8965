"""Rows without tensors become the inputs that a server says it takes, and its outputs plain values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marway.errors import InvalidRequest, ModelError
from marway.records import Signature, TensorSpec
from marway.wire.envelope import Part, Row
from marway.wire.headers import JSON_NONFINITE
from marway_http.tensors.datatypes import DATATYPES
from marway_http.tensors.plain_rows import answer_of_outputs, description_of, has_tensors, inputs_of_row
from marway_http.tensors.tensor import Tensor

JSON = "application/json"


def signature(**inputs: tuple[str, tuple[int, ...]]) -> Signature:
    return Signature(
        inputs=[TensorSpec(name=name, datatype=kind, shape=shape) for name, (kind, shape) in inputs.items()]
    )


def row(body: bytes, content_type: str | None = JSON, **headers: str) -> Row:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Row("r", [Part("data", body, content_type)], given)


@pytest.mark.parametrize(
    ("value", "kind", "shape", "made", "added"),
    [
        ([1, 2], "FP32", (-1, 2), (1, 2), True),
        ([[1, 2], [3, 4]], "FP32", (-1, 2), (2, 2), False),
        (3, "INT64", (-1,), (1,), True),
        (3, "INT64", (-1, 1), (1, 1), True),
        (3, "INT64", (), (), False),
        ([3], "INT64", (), (1,), False),
        ("word", "BYTES", (-1,), (1,), True),
        ({"b64": "/w=="}, "BYTES", (-1,), (1,), True),
        ([[True]], "BOOL", (-1, -1, -1), (1, 1, 1), True),
    ],
)
def test_a_value_is_a_row_of_its_input(
    value: Any, kind: str, shape: tuple[int, ...], made: tuple[int, ...], added: bool
) -> None:
    """A value gets the dimension of rows, unless it has it, or the input has none."""
    found = inputs_of_row(row(json.dumps(value).encode()), signature(x=(kind, shape)))
    assert [tensor.shape for tensor in found.tensors] == [made]
    assert found.rows_added is added
    assert found.tensors[0].values == ([b"\xff"] if isinstance(value, dict) else _flat(value))


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for each in value for leaf in _flat(each)]
    return [value.encode() if isinstance(value, str) else value]


def test_a_text_and_bytes_are_one_element() -> None:
    """A body that is no JSON is the one element of a BYTES input, and a number's text is a number."""
    words = signature(x=("BYTES", (-1, 1)))
    assert inputs_of_row(row(b"hello", "text/plain"), words).tensors[0].values == [b"hello"]
    assert inputs_of_row(row(b"\xff\x00", "image/png"), words).tensors[0].values == [b"\xff\x00"]
    assert inputs_of_row(row(b"[1, 2]", None), signature(x=("FP32", (-1, 2)))).tensors[0].values == [1.0, 2.0]


def test_several_inputs_come_by_name() -> None:
    """An object or a form has a value for each input."""
    both = signature(a=("FP32", (-1,)), b=("BYTES", (-1,)))
    as_object = inputs_of_row(row(b'{"b": "w", "a": 1.5}'), both)
    form = Row("r", [Part("a", b"1.5"), Part("b", b"w")], {"content-type": "multipart/form-data"})
    assert as_object == inputs_of_row(form, both)
    assert [(tensor.name, list(tensor.values)) for tensor in as_object.tensors] == [("a", [1.5]), ("b", [b"w"])]


@pytest.mark.parametrize(
    ("body", "kind", "shape", "said"),
    [
        (b"[1, [2]]", "FP32", (-1, 2), "not the same lengths"),
        (b"[1, 2, 3]", "FP32", (-1, 2), r"has the shape \[3\]: the model takes \[-1, 2\]"),
        (b'"x"', "FP32", (-1,), "is FP32; its element 0, 'x', is none"),
        (b"300", "UINT8", (-1,), "is UINT8; its element 0, 300, is none"),
        (b'{"y": 1}', "FP32", (-1,), "has no input 'y': it takes x"),
        (b'{"b64": "#"}', "BYTES", (-1,), "no base64"),
        (b"{", "FP32", (-1,), "is no JSON"),
    ],
)
def test_what_does_not_fit_is_refused(body: bytes, kind: str, shape: tuple[int, ...], said: str) -> None:
    """A value of another shape or datatype is named, with what the model takes."""
    with pytest.raises(InvalidRequest, match=said):
        inputs_of_row(row(body), signature(x=(kind, shape)))
    with pytest.raises(InvalidRequest, match="the inputs a, b"):
        inputs_of_row(row(b"1"), signature(a=("FP32", ()), b=("FP32", ())))
    with pytest.raises(InvalidRequest, match="send it as JSON"):
        inputs_of_row(row(b"\xff", "image/png"), signature(x=("FP32", (-1,))))
    with pytest.raises(InvalidRequest, match="does not say what it takes"):
        inputs_of_row(row(b"1"), Signature())


def out(name: str, kind: str, shape: tuple[int, ...], *values: Any) -> Tensor:
    return Tensor(name, DATATYPES[kind], shape, list(values))


def test_outputs_are_plain_values() -> None:
    """One output is its value, several an object; the dimension of rows goes where it was added."""
    asked = row(b"1")
    numbers = out("y", "FP32", (1, 2), 0.5, 1.0)
    answer = answer_of_outputs([numbers], asked, rows_added=True)
    assert (json.loads(answer.body), answer.kind, answer.content_type) == ([0.5, 1.0], "json", JSON)
    assert json.loads(answer_of_outputs([numbers], asked, rows_added=False).body) == [[0.5, 1.0]]
    word = out("w", "BYTES", (1,), b"word")
    assert answer_of_outputs([word], asked, rows_added=True).body == b"word"
    assert answer_of_outputs([word], asked, rows_added=True).kind == "text"
    assert answer_of_outputs([out("w", "BYTES", (1,), b"\xff")], asked, rows_added=True).kind == "bytes"
    both = answer_of_outputs([numbers, out("w", "BYTES", (1, 1), b"\xff")], asked, rows_added=True)
    assert json.loads(both.body) == {"y": [0.5, 1.0], "w": [{"b64": "/w=="}]}


def test_numbers_that_json_has_not_are_refused_or_as_the_row_says() -> None:
    """NaN is an error that names it, unless the row says what is to become of it."""
    nan = out("y", "FP32", (1,), float("nan"))
    with pytest.raises(ModelError, match="it is nan, a number that JSON has not"):
        answer_of_outputs([nan], row(b"1"), rows_added=True)
    told = Row("r", [Part("data", b"1")], {JSON_NONFINITE: "null"})
    assert answer_of_outputs([nan], told, rows_added=True).body == b"null"


@pytest.mark.parametrize(
    ("body", "headers", "is_one"),
    [
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}', {}, True),
        (b"anything", {"inference_header_content_length": "4"}, True),
        (b'{"inputs": [1, 2]}', {}, False),
        (b'{"inputs": {"x": 1}}', {}, False),
        (b'["inputs"]', {}, False),
        (b'{"inputs": ', {}, False),
        (b"[1]", {}, False),
    ],
)
def test_a_request_of_tensors_is_known(body: bytes, headers: dict[str, str], is_one: bool) -> None:
    """What has inputs with names and datatypes, or is binary, is a request of the protocol."""
    assert has_tensors(row(body, **headers)) is is_one


def test_a_description_names_each_tensor() -> None:
    """What a model takes and gives, as the gateway reads it."""
    said = json.loads(description_of(signature(x=("FP32", (-1, 2)))).body)
    assert said == {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []}
