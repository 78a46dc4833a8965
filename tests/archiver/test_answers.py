from __future__ import annotations

import json
from typing import Any

import pytest

from marway.answers.difference import difference, golden_difference, shown_value, value_difference
from marway.answers.golden import (
    ExampleInput,
    GoldenAnswer,
    GoldenDocument,
    GoldenExample,
    Tolerance,
    decode_examples,
    decode_golden,
    encode_examples,
)
from marway.errors import InvalidArchive, InvalidRecord

NAN = float("nan")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1.0, "b": [1, 2]}, {"b": [1, 2], "a": 1.00005}),
        (0.9914, 0.9915),
        (1, 1.00001),
        (NAN, NAN),
        (float("inf"), float("inf")),
        (10**400, 10**400),
        (None, None),
        (1e10, 1e10 + 1e5),
        ([], []),
    ],
)
def test_the_same_within_the_tolerance(left: Any, right: Any) -> None:
    """Floats may lie within the tolerance, its bound included; keys have no order; NaN is NaN."""
    assert value_difference(left, right) is None
    assert value_difference(right, left) is None


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ({"a": {"b": [1.0, 2.0]}}, {"a": {"b": [1.0, 2.1]}}, "at a.b[1]: 2.0 was expected, 2.1 came"),
        ({"a": 1}, {}, "'a' was expected and is missing"),
        ({}, {"a": 1}, "'a' came and was not expected"),
        ([1], [1, 2], "1 items were expected, 2 came"),
        (10_001, 10_002, "10001 was expected, 10002 came"),
        (True, 1, "true was expected, 1 came"),
        (0, None, "0 was expected, null came"),
        ("a", "b", '"a" was expected, "b" came'),
        (NAN, 1.0, "NaN was expected"),
        (10**400, 1.0, "was expected, 1.0 came"),
        ([], {}, "[] was expected, {} came"),
    ],
)
def test_a_difference_says_where_and_what(left: Any, right: Any, message: str) -> None:
    """The first difference is told with its path; integers, booleans and texts must be equal."""
    assert message in str(value_difference(left, right))


def test_depth_is_no_obstacle() -> None:
    """Answers nested deeper than Python's stack are compared and shown."""
    left: Any = 1
    right: Any = 2
    for _ in range(50_000):
        left, right = [left], [right]
    assert "1 was expected, 2 came" in str(value_difference(left, right))[-40:]
    assert shown_value(left)


def answer(**changes: Any) -> GoldenAnswer:
    return GoldenAnswer(**{"kind": "json", "value": {"score": 0.5}, "content_type": "application/json", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": 400}, "status 200 was expected, 400 came"),
        ({"status": 500, "kind": "error", "value": "boom"}, "500 came (boom)"),
        ({"kind": "text", "value": "x"}, "json was expected, text came"),
        ({"content_type": None}, "content type application/json was expected, None came"),
        ({"value": {"score": 0.6}}, "at score: 0.5 was expected, 0.6 came"),
    ],
)
def test_answers_differ_in_status_kind_content_type_and_value(changes: dict[str, Any], message: str) -> None:
    """Each part of an answer counts; parameters of a content type do not."""
    assert message in str(difference(answer(), answer(**changes)))
    assert difference(answer(), answer(content_type="application/json; charset=utf-8")) is None


def test_messages_of_errors_may_differ() -> None:
    """Two failures with one status are the same: a message may hold an address or a time."""
    one, other = (GoldenAnswer(status=400, kind="error", value=text) for text in ("at 0x1", "at 0x2"))
    assert difference(one, other) is None


def test_text_that_is_json_is_compared_as_json() -> None:
    """A handler that dumps its JSON itself, and says so, gets the tolerance of numbers; one that does not, does not."""

    def of(body: bytes, content_type: str | None) -> GoldenAnswer:
        return GoldenAnswer.of(status=200, kind="text", body=body, content_type=content_type)

    assert difference(of(b"[0.50000]", "application/json"), of(b"[0.50001]", "application/json")) is None
    assert difference(of(b"[0.50000]", None), of(b"[0.50001]", None))
    assert of(b"[oops", "application/json").kind == "text"
    assert GoldenAnswer.of(status=200, kind="bytes", body=b"\xff", content_type=None).value == "/w=="


def document(**changes: Any) -> GoldenDocument:
    example = GoldenExample(input_sha256="0" * 64, content_type="text/plain", answer=answer())
    return GoldenDocument(**{"archive_sha256": "1" * 64, "examples": (example,), **changes})


def test_a_golden_document_has_the_bytes_it_always_had() -> None:
    """The canonical bytes of a fixed document never change, and parse to it again."""
    golden = document(batch=True, batch_sizes=(2, 3))
    assert golden.sha256 == "2a5ee10d37610b3dffaef30b9f68d701875437eb95065528d0e26a8dd9688c76"
    assert decode_golden(golden.encode(), source="here") == golden
    odd = document(examples=(GoldenExample(input_sha256="0" * 64, answer=answer(value=["\ud800", NAN, 10**40])),))
    assert decode_golden(odd.encode(), source="here").encode() == odd.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "here is no golden document: "),
        (b"[]", "here is no golden document: document"),
        (b'{"archive_sha256": "x"}', "archive_sha256: String should match"),
        (document().encode().replace(b'"format": 1', b'"format": 2'), "format"),
        (b"[" * 100_000, "here is no golden document"),
    ],
)
def test_what_is_no_golden_document_is_refused(data: bytes, message: str) -> None:
    """Another document, a later format and no JSON at all give one line."""
    with pytest.raises(InvalidRecord) as caught:
        decode_golden(data, source="here")
    assert message in caught.value.message


def test_a_callables_answers_are_compared_by_value_and_status_only() -> None:
    """What a publisher's callable answered knows no content type, so only its value must come again."""
    plain = answer(content_type=None)
    golden = document(source="callable", examples=(GoldenExample(input_sha256="0" * 64, answer=plain),))
    assert golden_difference(golden, 0, answer()) is None
    assert golden_difference(golden, 0, answer(value={"score": 0.7}))
    assert golden_difference(golden, 0, answer(status=400))
    assert golden_difference(document(examples=golden.examples), 0, answer())
    assert golden_difference(golden, 0, answer(value={"score": 0.7}), tolerance=Tolerance(absolute=1)) is None


EXAMPLES = [
    ExampleInput(b"wake me", "text/plain"),
    ExampleInput(b'{"a":1}', "application/json; charset=utf-8", 400),
    ExampleInput(b"\xff"),
    ExampleInput(b"", "image/png"),
]


def test_inputs_come_back_from_an_archive() -> None:
    """The files that carry examples give the same examples, and are the same each time."""
    files = encode_examples(EXAMPLES)
    assert sorted(files) == [
        "MAR-INF/examples/0001.txt",
        "MAR-INF/examples/0002.json",
        "MAR-INF/examples/0003.bin",
        "MAR-INF/examples/0004.png",
        "MAR-INF/examples/index.json",
    ]
    assert decode_examples(lambda name, _: files.get(name)) == tuple(EXAMPLES)
    assert encode_examples(EXAMPLES) == files
    assert encode_examples([]) == {}
    assert decode_examples(lambda *_: None) == ()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", "index.json: document: Invalid JSON"),
        (b'{"format": 2, "examples": []}', "format"),
        (b'{"format": 1, "examples": [{"file": "../../x.txt"}]}', "examples.0.file"),
        (b'{"format": 1, "examples": [{"file": "0001.txt", "status": 7}]}', "examples.0.status"),
        (b'{"format": 1, "examples": [{"file": "0001.txt", "content_type": "a\\nb"}]}', "content_type"),
        (b'{"format": 1, "examples": [{"file": "0009.txt"}]}', "names 0009.txt, which is not in the archive"),
        (json.dumps({"format": 1, "examples": [{"file": "0001.txt"}] * 1001}).encode(), "examples"),
    ],
)
def test_a_damaged_index_is_refused(index: bytes, message: str) -> None:
    """An index that is none, or names something else than its own files, gives one line."""
    files = {"MAR-INF/examples/index.json": index, "MAR-INF/examples/0001.txt": b"x"}
    with pytest.raises(InvalidArchive) as caught:
        decode_examples(lambda name, _: files.get(name))
    assert message in caught.value.message


def test_too_many_or_too_large_examples_are_refused() -> None:
    """An archive carries at most 1000 examples and 64 MiB of them."""
    with pytest.raises(InvalidArchive, match="at most 1000"):
        encode_examples([ExampleInput(b"x")] * 1001)
    with pytest.raises(InvalidArchive, match="more than 67108864 bytes"):
        encode_examples([ExampleInput(bytes(33 << 20))] * 2)


def test_what_nobody_stated_of_a_response_is_the_servers_matter() -> None:
    """Parameters that a server adds to a response of the Open Inference Protocol differ only where some were stated."""
    output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}
    sent = ExampleInput(b"{}", "application/json")

    def found(stated: Any, came: Any) -> str | None:
        example = GoldenExample(input_sha256=sent.sha256, answer=GoldenAnswer(kind="json", value=stated))
        document = GoldenDocument(archive_sha256="0" * 64, source="given", examples=(example,))
        return golden_difference(document, 0, GoldenAnswer(kind="json", content_type="application/json", value=came))

    came = {"outputs": [output | {"parameters": {"content_type": "np"}}], "parameters": {}}
    assert found({"outputs": [output]}, came) is None
    assert found(came, came) is None
    assert (
        found({"outputs": [output], "parameters": {"a": 1}}, came) == "at parameters: 'a' was expected and is missing"
    )
    assert found({"outputs": []}, came) == "at outputs: 0 items were expected, 1 came"
    assert found({"outputs": [output | {"data": [2.0]}]}, came) == "at outputs[0].data[0]: 2.0 was expected, 1.0 came"
    assert found({"outputs": 3}, came) is not None
    assert found([], came) is not None
