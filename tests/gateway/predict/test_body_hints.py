"""What a caller is told when a model fails on a body that was sent otherwise than it was meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, broken_model, running
from marway.registry import Registry
from marway_gateway.predict.body_hints import body_hint
from support.registry import publish

FORM = "application/x-www-form-urlencoded"
PICTURE = (Path(__file__).parents[3] / "examples" / "digits" / "samples" / "7.png").read_bytes()
STRIPPED = PICTURE.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")  # as curl -d @FILE sends it
MakePod = Callable[..., Awaitable[FakePod]]


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        (FORM, b'{"a": 1}', "is JSON and came as application/x-www-form-urlencoded, which is what curl -d says: "),
        (FORM + "; charset=utf-8", b" [1]", "send -H 'content-type: application/json'"),
        (None, b'{"a": 1}', "is JSON and came without a content type: "),
        ("text/plain", b'{"a": 1}', "is JSON and came as text/plain: "),
        ("application/octet-stream", b"[1, 2]", "is JSON and came as application/octet-stream: "),
        ("application/json", b"{a: 1}", "came as application/json, and is not valid JSON (Expecting property name"),
        ("application/json", b"\xff\xfe{", "is not valid JSON"),
        (FORM, PICTURE, "send it with --data-binary @FILE and -H 'content-type: image/png'"),
        (FORM, b"\xff\xd8\xff\xe0" + b"x" * 9, "-H 'content-type: image/jpeg'"),
        (FORM, b"\x80\x81" * 40_000, "send it with --data-binary @FILE and its content type"),
        (FORM, STRIPPED, "a PNG picture without its line ends, which curl -d @FILE takes out"),
        ("image/png", STRIPPED, "send it with --data-binary @FILE"),
    ],
)
def test_a_slip_is_named_with_what_to_send(content_type: str | None, body: bytes, says: str) -> None:
    """JSON that was not called so, text that is no JSON, and bytes that went as a form are each told apart."""
    hint = body_hint(content_type, body)
    assert hint is not None
    assert says in hint


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"a": 1}'),
        ("application/json", b'{"a": ' + b"x" * 70_000),  # too long to be read for this
        ("image/png", PICTURE),
        ("multipart/form-data; boundary=x", b'{"a": 1}'),
        (FORM, b"text=wake+me+up"),
        (FORM, "räum auf".encode()),
        (FORM, ("x" * 65_535 + "ä").encode()),
        (FORM, b"{not json}"),
        (FORM, b"[" + b"x" * 70_000),
        ("text/plain", b"[later] call mum"),
        ("text/plain", b"[" * 50_000),
        (None, b"tell me a joke"),
    ],
)
def test_what_may_be_meant_gets_no_hint(content_type: str | None, body: bytes) -> None:
    """A body that is what it was called, or may be, is not second-guessed."""
    assert body_hint(content_type, body) is None


async def test_the_hint_stands_behind_the_models_error(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Native and TorchServe's errors carry it, with the model's own words and status first; others do not."""
    publish(registry, tmp_path)
    pod = await make_pod(behave=broken_model)
    async with running(pod, registry=registry) as gateway:
        native = await gateway.predict("/predict/intent", b'{"text": "x"}', content_type=FORM)
        torchserve = await gateway.predict("/predictions/intent", b'{"text": "x"}', content_type=FORM)
        meant = await gateway.predict("/predict/intent", b'{"text": "x"}', content_type="application/json")
        rows = await gateway.predict("/v1/models/intent:predict", b'{"instances": ["x"]}', content_type="text/plain")
    hint = (
        "; the body is JSON and came as application/x-www-form-urlencoded, which is what curl -d says: if the model "
        "wants JSON, send -H 'content-type: application/json'"
    )
    assert (native.status_code, native.json()["code"]) == (422, "model_error")
    assert native.json()["detail"] == f"KeyError: 'text'{hint}"
    assert torchserve.json() == {"code": 422, "type": "InternalServerException", "message": f"KeyError: 'text'{hint}"}
    assert meant.json()["detail"] == "KeyError: 'text'"
    assert "curl" not in rows.text
