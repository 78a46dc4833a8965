"""What a try-it form offers, by a version's signature and golden examples."""

from __future__ import annotations

import json

from marway.answers.golden import ExampleInput
from marway.records import Signature, TensorSpec
from marway.versions.contents import GoldenPair
from marway_gateway.admin.versions.views import ExamplesView
from marway_gateway.console.trying.forms import TryForm, form_of
from support.registry import record_of


def form(*inputs: ExampleInput, tensors: tuple[TensorSpec, ...] = ()) -> TryForm:
    record = record_of(b"x", signature=Signature(inputs=tensors))
    pairs = [GoldenPair(each, None) for each in inputs]
    return form_of(record, ExamplesView.of(record, None, pairs, 20), streams=False)


def test_the_first_example_decides() -> None:
    """A form begins with the way of the first example, filled in; each way has the first example of its own."""
    text, document = ExampleInput(b"hello", "text/plain"), ExampleInput(b'{"a": 1}', "application/json; charset=utf-8")
    found = form(text, document)
    assert (found.way, found.text, found.json_text, found.ways) == (
        "text",
        "hello",
        '{\n  "a": 1\n}',
        ("text", "json", "file"),
    )
    assert form(document).way == "json"
    assert form(ExampleInput(b"no type")).way == "text"
    assert form(ExampleInput(b"{broken", "application/json")).json_text == "{broken"


def test_what_is_no_text_is_a_file() -> None:
    """Pictures, sound and anything else that is no text are fetched as files, with their content type."""
    found = form(ExampleInput(b"\xff\xd8", "image/jpeg"), ExampleInput(b"plain", "audio/x-raw"))
    assert (found.way, found.content_type) == ("file", "image/jpeg")
    assert [(each.way, each.text) for each in found.examples] == [("file", None), ("file", None)]


def test_tensors_of_a_signature() -> None:
    """Each input has a field, filled with zeros of its shape where that is small; any length is taken as 1."""
    tensors = (
        TensorSpec(name="pixels", datatype="FP32", shape=(-1, 2)),
        TensorSpec(name="names", datatype="BYTES", shape=(2,)),
        TensorSpec(name="flag", datatype="BOOL", shape=(1,)),
        TensorSpec(name="image", datatype="UINT8", shape=(-1, 224, 224, 3)),
    )
    found = form(tensors=tensors)
    assert (found.way, found.ways[-1]) == ("tensors", "tensors")
    assert [json.loads(each.filled) for each in found.tensors] == [[[0.0, 0.0]], ["text", "text"], [False], []]
    assert form(ExampleInput(b"hello", "text/plain"), tensors=tensors).way == "text"  # an example shows what it takes
    assert form().way == "text"
