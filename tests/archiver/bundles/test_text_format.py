"""The text format of Protocol Buffers, read as its authors' own library reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf import struct_pb2, text_format
from hypothesis import given
from hypothesis import strategies as st

from marway.errors import InvalidArchive
from marway_archiver.bundles.text_format import parse_text_format

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, width=32) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


def one(values: Sequence[Any]) -> Any:
    assert len(values) == 1
    return values[0]


def plain(value: Any) -> Any:
    """Return the JSON that a message of the type `Value` stands for."""
    ((kind, found),) = value.items()
    match kind:
        case "null_value":
            return None
        case "number_value":
            return float(one(found))
        case "bool_value":
            return one(found) == "true"
        case "string_value":
            return one(found)
        case "list_value":
            return [plain(each) for each in one(found).get("values", ())]
        case _:
            return struct(one(found))


def struct(message: Any) -> dict[str, Any]:
    return {one(each.get("key", ("",))): plain(one(each["value"])) for each in message.get("fields", ())}


@given(document=st.dictionaries(st.text(max_size=4), JSON, max_size=3), one_line=st.booleans(), marks=st.booleans())
def test_what_its_authors_write_is_read(document: dict[str, Any], one_line: bool, marks: bool) -> None:
    """Nested messages, lists, numbers and texts with any characters."""
    message = struct_pb2.Struct()
    message.update(document)
    text = text_format.MessageToString(
        message, as_one_line=one_line, pointy_brackets=marks, use_short_repeated_primitives=True, as_utf8=marks
    )
    expected = struct_pb2.Struct()
    text_format.Parse(text, expected)
    assert expected == message
    assert struct(parse_text_format(text, "x")) == document


@given(text=st.text(alphabet="ab:{}<>[],;\"'\\ \n#1.-", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """What is not in the format is refused with its line."""
    refused = ""
    try:
        parse_text_format(text, "x.pbtxt")
    except InvalidArchive as exc:
        refused = exc.message
    assert refused.startswith("x.pbtxt:") or not refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1 }", "x:1: '}' stands where a field's name should"),
        ("a: ", "x:1: it ends early"),
        ("a 1", "x:1: a ':' is missing after a field's name"),
        ("a: [1 2]", "x:1: a ',' is missing in a list"),
        ("\n\na: \"b", "x:3: '\"' is not understood here"),
        ("a: \"\\x\"", "x:1: '\"\\\\x\"' is no text"),
    ],
)  # fmt: skip
def test_a_slip_is_named(text: str, message: str) -> None:
    """With the line that it is in."""
    with pytest.raises(InvalidArchive) as caught:
        parse_text_format(text, "x")
    assert caught.value.message == message
