"""What handlers are given for a row."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest

from marway.wire.envelope import Part, Row
from marway.worker.requests import Headers, UnusableInput, request_of, unexplained


def raw(value: bytes = b"[1]", content_type: str | None = "application/json; charset=utf-8") -> Row:
    headers = {"content-type": content_type} if content_type is not None else {}
    return Row("asked", [Part("data", value, content_type)], headers)


def test_a_raw_body_answers_to_both_names_and_is_one_value() -> None:
    """Handlers written for REST (`body`) and for gRPC (`data`) find the value; whoever iterates sees one key."""
    given = request_of(raw()).inputs()
    assert given["data"] == given["body"] == given.get("body") == given.get("data") == [1]
    assert "body" in given
    assert "data" in given
    assert list(given.items()) == [("data", [1])]
    assert list(given) == ["data"]
    assert len(given) == 1
    assert given.get("other") is None
    assert "other" not in given
    with pytest.raises(KeyError):
        given["other"]
    assert given.pop("body") == [1]
    assert given.get("body", "gone") == "gone"
    assert given.pop("body", None) is None


def test_a_form_has_its_fields_and_no_other_names() -> None:
    """A field that happens to be called data has no second name; of two that share one the last counts."""
    form = {"content-type": "multipart/form-data; boundary=x"}
    given = request_of(Row("asked", [Part("data", b"1"), Part("data", b"2")], form)).inputs()
    assert given == {"data": bytearray(b"2")}
    one = request_of(Row("asked", [Part("data", b"1")], form)).inputs()
    assert "body" not in one
    assert one.get("body") is None


@pytest.mark.parametrize(
    ("value", "content_type", "given"),
    [
        (b"[1]", "application/json", [1]),
        (b"[1", "application/json", bytearray(b"[1")),
        (b"[1]", "application/problem+json", bytearray(b"[1]")),
        (b"[1]", "APPLICATION/JSON", bytearray(b"[1]")),
        ("ü".encode(), "text/plain; charset=utf-8", "ü"),
        (b"\xff", "text/plain", bytearray(b"\xff")),
        (b"a", None, bytearray(b"a")),
        (b"a", "image/png", bytearray(b"a")),
    ],
)
def test_values_are_decoded_as_torchserve_decodes_them(value: bytes, content_type: str | None, given: object) -> None:
    """JSON is parsed, text a str and everything else bytes, also what says it is JSON or text and is not."""
    found = request_of(raw(value, content_type)).inputs()["data"]
    assert (type(found), found) == (type(given), given)


def test_json_that_is_nested_too_deeply_is_the_callers_fault() -> None:
    """It is refused, and no parser's limit becomes an error of the model."""
    with pytest.raises(UnusableInput, match="nested too deeply"):
        request_of(raw(b"[" * 100_000 + b"]" * 100_000)).inputs()


def test_headers_are_found_however_they_are_spelt() -> None:
    """Names are compared without case; each part's content type stands under the part's name, as in TorchServe."""
    row = Row("asked", [Part("data", b"x", "text/plain; charset=utf-8")], {"x-tenant": "blue"})
    headers = request_of(row).headers
    assert headers.get("X-Tenant") == headers["x-TENANT"] == "blue"
    assert "X-TENANT" in headers
    assert headers.get("x-other") is None
    assert headers["data"] == headers["body"] == {"content-type": "text/plain"}
    assert (headers["explain"], headers["url_path"]) == ("False", "")


@pytest.mark.parametrize(
    ("look", "found_out"),
    [
        (lambda headers: headers.get("explain"), True),
        (lambda headers: headers.get("Explain"), True),
        (lambda headers: headers["explain"], True),
        (lambda headers: headers["EXPLAIN"], True),
        (lambda headers: "explain" in headers, True),
        (dict, True),
        (list, True),
        (lambda headers: headers.items(), True),
        (lambda headers: headers.keys(), True),
        (lambda headers: headers.values(), True),
        (lambda headers: headers.copy(), True),
        (json.dumps, True),
        (lambda headers: headers.get("x-tenant"), False),
        (lambda headers: headers["content-type"], False),
        (lambda headers: "url_path" in headers, False),
        (len, False),
    ],
)
def test_whether_a_handler_found_out_that_it_is_to_explain(look: Callable[[Headers], object], found_out: bool) -> None:
    """Headers of rows to explain note whether anybody looked, in any row; those of other rows never say so."""
    rows = [
        Row("asked", [Part("data", b"x")], {"content-type": "text/plain", "explain": explain})
        for explain in ("True", "True", "False")
    ]
    first, second, predicted = (request_of(row).headers for row in rows)
    assert unexplained([first, second])
    look(second)
    assert unexplained([first, second]) is not found_out
    assert not unexplained([predicted])
    assert (first.get("explain"), predicted.get("explain")) == ("True", "False")


def test_copies_of_a_raw_body_answer_to_both_names() -> None:
    """Handlers that copy a row, or join others to it, find the value under the name that they were written for."""
    given = request_of(raw()).inputs()
    both = {"data": [1], "body": [1]}
    assert dict(given) == {**given} == both
    assert given | {"x": 1} == {**both, "x": 1}
    assert {"x": 1} | given == {"x": 1, **both}
    joined: dict[str, object] = {}
    joined.update(given)
    assert joined == both
    for copied in (given.copy(), copy.copy(given), copy.deepcopy(given)):
        assert copied["body"] == [1]
        assert list(copied) == ["data"]
    given.pop("data")
    assert dict(given) == {}
