"""What `observe_redact` takes out of bodies, whatever surface they came by."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from marway.redaction import redaction_of
from marway.serving import ServingSettings

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
SECRET = "C4NARY"
TENSOR = {"name": "email", "shape": [1], "datatype": "BYTES", "data": [SECRET]}
WITHIN = json.dumps({"user": {"email": SECRET}, "age": 3})


def left(body: bytes, kind: str | None = JSON, *paths: str) -> bytes | None:
    """Return what is left of an input."""
    return redaction_of(paths or ("user.email", "email")).body("input", body, kind)


@pytest.mark.parametrize(
    "document",
    [
        {"user": {"email": SECRET, "age": 3}},
        [{"user": {"email": SECRET}}],
        {"instances": [{"user": {"email": SECRET}}, {"user": None}]},
        {"inputs": [TENSOR, {"name": "age", "shape": [1], "datatype": "INT64", "data": [3]}]},
        {"inputs": [{"name": "body", "shape": [1], "datatype": "BYTES", "data": [WITHIN]}]},
        {"messages": [{"role": "user", "content": WITHIN}]},
        {"instances": [{"b64": base64.b64encode(WITHIN.encode()).decode()}]},
        {"user": json.dumps({"email": SECRET})},
        {"email": {"at": SECRET}},
        {"instances": [{"b64": base64.b64encode(f"JPEG {SECRET}".encode()).decode()}]},
    ],
    ids=["top", "list", "v1", "v2", "v2-text", "openai", "b64", "text", "deeper", "opaque"],
)
def test_a_field_goes_wherever_a_surface_has_it(document: object) -> None:
    """The same path finds its field in the rows, tensors, texts and base64 values of every protocol."""
    kept = left(json.dumps(document).encode())
    assert kept is not None
    json.loads(kept)
    assert SECRET.encode() not in kept
    assert base64.b64encode(SECRET.encode())[:6] not in kept


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("items[*].key", {"items": [{"key": 1, "n": 2}]}, {"items": [{"n": 2}]}),
        ("items[].key", {"items": [[{"key": 1}], {"key": 2}]}, {"items": [[{}], {}]}),
        ("items[0]", {"items": [1, 2]}, {"items": [None, 2]}),
        ("items[-1]", {"items": [1, 2]}, {"items": [1, None]}),
        ("items[1:]", {"items": [1, 2, 3]}, {"items": [1, None, None]}),
        ("items[*]", {"items": [1, 2]}, {"items": []}),
        ("people.*.key", {"people": {"a": {"key": 1, "n": 2}}}, {"people": {"a": {"n": 2}}}),
        ("items[?kind=='mail'].text", {"items": [{"kind": "mail", "text": 1}, {"kind": "x", "text": 2}]},
         {"items": [{"kind": "mail"}, {"kind": "x", "text": 2}]}),
        ('"e-mail".to', {"e-mail": {"to": 1, "n": 2}}, {"e-mail": {"n": 2}}),
        ("input.key", {"key": 1, "n": 2}, {"n": 2}),
        ("output.key", {"key": 1}, {"key": 1}),
    ],
)  # fmt: skip
def test_paths(path: str, before: object, after: object) -> None:
    """Names, places, all elements, all fields, and those that a condition holds for."""
    kept = left(json.dumps(before).encode(), JSON, path)
    assert kept is not None
    assert json.loads(kept) == after


def test_forms() -> None:
    """A form's field goes, by its own name or as a part of another."""
    body = b"email=C4NARY&user%5Bemail%5D=C4NARY&user=%7B%22email%22%3A%22C4NARY%22%7D&age=3+4"
    assert left(body, FORM) == b"user=%7B%7D&age=3%204"
    multipart = (
        b'--B\r\nContent-Disposition: form-data; name="email"\r\n\r\nC4NARY\r\n'
        b'--B\r\nContent-Disposition: form-data; name="age"\r\n\r\n3\r\n--B--\r\n'
    )
    kept = left(multipart, "multipart/form-data; boundary=B")
    assert kept == b'--B\r\nContent-Disposition: form-data; name="age"\r\n\r\n3\r\n--B--\r\n'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"some text C4NARY", "text/plain"),
        (b"\x89PNG C4NARY", "image/png"),
        (b'{"email": "C4NARY"', JSON),
        (b"my mail is C4NARY", FORM),
        (b'--B\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\nC4NARY\r\n--B--\r\n',
         "multipart/form-data; boundary=B"),
        (b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nC4NARY', "multipart/form-data"),
        (b"[" * 100_000, JSON),
    ],
    ids=["text", "image", "broken", "no-form", "file", "no-boundary", "deep"],
)  # fmt: skip
def test_what_cannot_be_read_is_not_kept(body: bytes, kind: str) -> None:
    """There is no redacted form of what may hold anything."""
    assert left(body, kind) is None


def test_json_is_read_as_such_whatever_it_is_called() -> None:
    """`curl -d` calls all a form; and of two fields of one name none is left."""
    assert left(b'{"email": "C4NARY"}', FORM) == b"{}"
    assert left(b'{"email": "C4NARY", "email": "C4NARY"}', None) == b"{}"


def test_sides() -> None:
    """A path that begins with a side is that side's alone, and the side alone means all of it."""
    redaction = redaction_of(("input.email", "output"))
    assert redaction.body("output", b"{}", JSON) is None
    assert redaction_of(("input.email",)).body("output", b"plain", "text/plain") == b"plain"
    assert not redaction.keeps_errors
    assert redaction_of(("output.email",)).keeps_errors


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("a[", "no JMESPath"),
        ("length(a)", "names no field"),
        ("a | b", "names no field"),
        ("[a, b]", "names no field"),
        ("@", "is everything"),
        ("header:", "names no header"),
        ("header:x y", "names no header"),
    ],
)
def test_what_cannot_be_taken_out_is_refused_when_it_is_set(entry: str, said: str) -> None:
    """The setting is refused with what is wrong, not found out when a request comes."""
    with pytest.raises(ValidationError, match=said):
        ServingSettings(observe_redact=(entry,))


_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "key"]), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=30)
@given(_documents)
def test_whatever_a_document_is_nothing_of_the_field_is_left(document: object) -> None:
    """No value of the field is in what is left, wherever in a document it was; the rest is."""
    marked = _marked(document, "key")
    kept = left(json.dumps({"a": marked, "other": "stays"}).encode(), JSON, "key")
    assert kept is not None
    assert SECRET.encode() not in kept
    assert b"stays" in kept


def _marked(document: object, name: str) -> object:
    """Return a document whose fields of a name hold the canary."""
    if isinstance(document, dict):
        return {key: SECRET if key == name else _marked(value, name) for key, value in document.items()}
    if isinstance(document, list):
        return [_marked(value, name) for value in document]
    return document
