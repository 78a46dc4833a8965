import io
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marway.client.values import body_of
from marway.errors import InvalidInput
from marway.records import VersionRecord


@dataclass
class Point:
    x: int
    y: float


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"a": [1, None, True]}, {"a": [1, None, True]}),
        (3, 3),
        (None, None),
        ((1, 2), [1, 2]),
        ({4}, [4]),
        (np.array([[1.5, 2], [3, 4]], dtype=np.float32), [[1.5, 2.0], [3.0, 4.0]]),
        ({"rows": np.arange(3), "one": np.float64(0.5)}, {"rows": [0, 1, 2], "one": 0.5}),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        (torch.ones(2, dtype=torch.bfloat16, requires_grad=True), [1.0, 1.0]),
        (Point(1, 2.5), {"x": 1, "y": 2.5}),
        (date(2026, 12, 1), "2026-12-01"),
    ],
)
def test_values_go_as_json(value: object, sent: object) -> None:
    """What JSON can say goes as JSON; arrays and tensors go as lists, wherever they are in it."""
    body, content_type = body_of(value)
    assert (json.loads(body), content_type) == (sent, "application/json")


def test_text_and_bytes_go_as_they_are() -> None:
    """Text is UTF-8, bytes of any kind are themselves, and the caller's content type goes before ours."""
    assert body_of("wéck me") == ("wéck me".encode(), "text/plain")
    assert body_of("<a/>", "application/xml") == (b"<a/>", "application/xml")
    assert body_of(bytearray(b"\0")) == body_of(memoryview(b"\0")) == (b"\0", "application/octet-stream")
    assert body_of([1], "application/vnd.own+json") == (b"[1]", "application/vnd.own+json")


def test_files_have_the_type_that_their_names_say(tmp_path: Path) -> None:
    """A path's content goes with the type of its ending, and so does a file that was opened."""
    file = tmp_path / "seven.png"
    file.write_bytes(b"png")
    assert body_of(file) == (b"png", "image/png")
    with file.open("rb") as opened:
        assert body_of(opened) == (b"png", "image/png")
    assert body_of(io.BytesIO(b"x")) == (b"x", "application/octet-stream")


def test_pictures_go_as_png() -> None:
    """A picture of Pillow goes as PNG without loss."""
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    body, content_type = body_of(picture)
    assert content_type == "image/png"
    assert Image.open(io.BytesIO(body)).getpixel((2, 1)) == (10, 20, 30)


@pytest.mark.parametrize(
    ("value", "content_type", "said"),
    [
        (float("nan"), None, "None in its place"),
        ({"a": np.array([np.inf])}, None, "None in its place"),
        ({"a": b"raw"}, None, "base64"),
        (object(), None, "builtins.object has no form in JSON"),
        (VersionRecord, None, "has no form in JSON"),
        ("\ud800", None, "no Unicode"),
        (["\ud800"], None, "no Unicode"),
        ([1], "image/png", "goes as JSON"),
        (Path("/nowhere/to/be.found"), None, "cannot read the input file"),
        (io.StringIO("text"), None, "'rb'"),
        (Image.new("CMYK", (1, 1)), None, "convert it"),
        (Image.new("RGB", (1, 1)), "image/jpeg", "goes as image/png"),
    ],
)
def test_what_cannot_be_sent_is_refused(value: object, content_type: str | None, said: str) -> None:
    """A value that no handler would understand is refused before anything is sent, with what to do."""
    with pytest.raises(InvalidInput, match=said):
        body_of(value, content_type)


def test_a_value_that_contains_itself() -> None:
    """A value without an end is refused, not recursed into."""
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidInput, match="contains itself"):
        body_of(endless)
