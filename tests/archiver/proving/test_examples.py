from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from marway.answers.golden import ExampleInput
from marway.errors import InvalidArchive
from marway_archiver import Example
from marway_archiver.proving.batch_plan import plan_batches
from marway_archiver.proving.examples import (
    UNSET,
    body_value,
    check_examples_type,
    encode_all,
    example_of_flag,
    input_line,
    read_jsonl,
)


@pytest.mark.parametrize(
    ("flag", "data", "content_type"),
    [
        ("wake me", b"wake me", "text/plain"),
        ("", b"", "text/plain"),
        ("7", b"7", "text/plain"),
        ('{"text": "x"}', b'{"text": "x"}', "application/json"),
        ("[1, 2]", b"[1, 2]", "application/json"),
        ('"x"', b'"x"', "application/json"),
        ("[urgent] wake me", b"[urgent] wake me", "text/plain"),
        ("{broken", b"{broken", "text/plain"),
        ("ü", "ü".encode(), "text/plain"),
    ],
)
def test_a_flags_value_is_json_or_text(flag: str, data: bytes, content_type: str) -> None:
    """`--example` takes a JSON object, array or string as it stands, and anything else as text."""
    assert example_of_flag(flag).encoded() == ExampleInput(data, content_type)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.json", "application/json"),
        ("a.TXT", "text/plain"),
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.npy", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_a_flags_file_is_sent_as_its_name_says(name: str, content_type: str, tmp_path: Path) -> None:
    """`--example @FILE` sends the file's bytes, with a content type of its ending."""
    (tmp_path / name).write_bytes(b"\xffx")
    assert example_of_flag(f"@{tmp_path / name}").encoded() == ExampleInput(b"\xffx", content_type)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("wake me", ExampleInput(b"wake me", "text/plain")),
        ({"text": "ü", "n": [1, None]}, ExampleInput('{"text":"ü","n":[1,null]}'.encode(), "application/json")),
        (7, ExampleInput(b"7", "application/json")),
        (b"\xff", ExampleInput(b"\xff", "application/octet-stream")),
        (Example("x", content_type="application/json"), ExampleInput(b'"x"', "application/json")),
        (Example("<a/>", content_type="text/xml", status=400), ExampleInput(b"<a/>", "text/xml", 400)),
        (Example(b"\xff", content_type="image/png"), ExampleInput(b"\xff", "image/png")),
    ],
)
def test_python_values_are_encoded_as_a_client_would(value: Any, sent: ExampleInput) -> None:
    """Texts, bytes and JSON values, or an `Example` of them, become a body and its content type."""
    assert encode_all([value])[1] == [sent]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "neither text, bytes nor JSON"),
        ({"a": {1, 2}}, "neither text, bytes nor JSON"),
        ("\ud800", "half a surrogate pair"),
        (Example("x", status=99), "status 99"),
        (Example("x", status=True), "status True"),
        (Example("x", content_type="a\nb"), "content type"),
        (Example("x", content_type=""), "content type"),
        (Path("/nowhere/x"), "does not exist"),
    ],
)
def test_what_cannot_be_sent_is_refused(value: Any, message: str) -> None:
    """A value that is no body, and a status or content type that cannot be, give one line."""
    with pytest.raises(InvalidArchive, match=message):
        encode_all([value])


@pytest.mark.parametrize("value", ["text", b"bytes", {"a": 1}])
def test_one_example_is_not_taken_apart(value: Any) -> None:
    """A text or mapping where a sequence of examples belongs is refused, not read letter by letter."""
    with pytest.raises(InvalidArchive, match="into a list"):
        check_examples_type(value)


def test_a_jsonl_file_gives_inputs_and_expectations(tmp_path: Path) -> None:
    """Each line has an input or a file beside it, and may say output, content type and status."""
    (tmp_path / "seven.png").write_bytes(b"png")
    lines = [
        {"input": "wake me", "output": {"label": "set_alarm"}},
        {"input": {"text": "x"}, "output": None},
        {"file": "seven.png"},
        {"input": "x", "content_type": "application/json", "status": 400},
    ]
    path = tmp_path / "examples.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    found = read_jsonl(path)
    assert [each.output for each in found] == [{"label": "set_alarm"}, None, UNSET, UNSET]
    assert [each.encoded() for each in found] == [
        ExampleInput(b"wake me", "text/plain"),
        ExampleInput(b'{"text":"x"}', "application/json"),
        ExampleInput(b"png", "image/png"),
        ExampleInput(b'"x"', "application/json", 400),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no example"),
        ("{", ":1: is not JSON"),
        ('{"input": 1}\n[1]', ":2: an object with either 'input' or 'file'"),
        ('{"output": 1}', "either 'input' or 'file'"),
        ('{"input": 1, "file": "x"}', "either 'input' or 'file'"),
        ('{"input": 1, "ouput": 2}', "'ouput' is no field"),
        ('{"input": 1, "content_type": 2}', "content_type is a text"),
        ('{"input": 1, "status": "400"}', "status is a number"),
        ('{"file": 1}', "file is the name"),
        ("[" * 100_000, ":1: is not JSON"),
    ],
)
def test_a_bad_jsonl_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    """A line that is no example is refused with its number."""
    path = tmp_path / "examples.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidArchive) as caught:
        read_jsonl(path)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (ExampleInput(b'{"a": 1}', "application/json; charset=utf-8"), {"a": 1}),
        (ExampleInput(b"{", "application/json"), bytearray(b"{")),
        (ExampleInput("ü".encode(), "text/plain"), "ü"),
        (ExampleInput(b"\xff", "text/plain"), bytearray(b"\xff")),
        (ExampleInput(b"x", "image/png"), bytearray(b"x")),
        (ExampleInput(b"x"), bytearray(b"x")),
    ],
)
def test_a_body_is_parsed_as_torchserve_parses_it(sent: ExampleInput, value: Any) -> None:
    """JSON becomes a value and text a str; what cannot be decoded, and all else, stays bytes."""
    assert body_value(sent) == value
    assert type(body_value(sent)) is type(value)


def test_an_input_is_shown_in_one_line() -> None:
    """Tables show the beginning of a text, and the size of anything else."""
    assert input_line(ExampleInput(b"a\n b", "text/plain")) == "a b"
    assert len(input_line(ExampleInput(b"a" * 5000, "text/plain"))) == 48
    assert input_line(ExampleInput(b"12", "image/png")) == "image/png, 2 bytes"


@pytest.mark.parametrize("groups", [[0, 1], [0, 0, 0, 1], list(range(40)), [0, 1] * 7, [0] * 60 + [60]])
@pytest.mark.parametrize("max_rows", [2, 3, 5, 32])
def test_batches_can_show_an_answer_in_the_wrong_row(groups: list[int], max_rows: int) -> None:
    """Sizes go up to the largest, neighbours always have unlike answers, and the plan is the same each time."""
    plan = plan_batches(groups, [1] * len(groups), max_rows=max_rows, max_bytes=1000)
    sizes = {2: [2], 3: [2, 3], 5: [2, 3, 4, 5], 32: [2, 3, 4, 8, 16, 32]}
    assert [len(batch) for batch in plan] == sizes[max_rows]
    for batch in plan:
        assert all(groups[left] != groups[right] for left, right in pairwise(batch))
    assert plan == plan_batches(groups, [1] * len(groups), max_rows=max_rows, max_bytes=1000)
    if max_rows == 32 and len(groups) <= 14:
        assert any(len(batch) > len(set(batch)) for batch in plan)
        assert {index for batch in plan for index in batch} == set(range(len(groups)))


def test_batches_are_cut_at_the_largest_bytes_but_not_below_two_rows() -> None:
    """No batch has more bytes than the sidecar would send, save that two rows are always tried."""
    assert [len(batch) for batch in plan_batches([0, 1], [100, 100], max_rows=32, max_bytes=500)] == [2, 3, 4, 5]
    assert [len(batch) for batch in plan_batches([0, 1], [100, 100], max_rows=32, max_bytes=50)] == [2]
