"""Bodies of every protocol as rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marway.answers.bodies import parts_of

PNG = b"\x89PNG\r\n\x1a\n..."
MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + PNG
    + b"\r\n--x--\r\n"
)
FIELDS = (
    b'--x\r\nContent-Disposition: form-data; name="age"\r\n\r\n41\r\n'
    b'--x\r\nContent-Disposition: form-data; name="more"\r\nContent-Type: application/json\r\n\r\n{"a": 1}\r\n--x--\r\n'
)


def tensors(*described: tuple[str, list[int], list[Any]], name: str = "inputs") -> bytes:
    return json.dumps(
        {name: [{"name": each, "shape": shape, "datatype": "FP32", "data": data} for each, shape, data in described]}
    ).encode()


@pytest.mark.parametrize(
    ("body", "content_type", "rows"),
    [
        (b'{"a": 1}', "application/json; charset=utf-8", [{"a": 1}]),
        (b"[1, 2]", "application/vnd.own+json", [[1, 2]]),
        (b'{"instances": [{"a": 1}, {"a": 2}]}', "application/json", [{"a": 1}, {"a": 2}]),
        (b'{"predictions": [[0.1], [0.9]]}', "application/json", [[0.1], [0.9]]),
        (tensors(("x", [2, 2], [1, 2, 3, 4]), ("y", [2], [5, 6])), "application/json",
         [{"x": [1, 2], "y": 5}, {"x": [3, 4], "y": 6}]),
        (tensors(("x", [2, 2], [[1, 2], [3, 4]]), name="outputs"), "application/json", [{"x": [1, 2]}, {"x": [3, 4]}]),
        (tensors(("x", [2], [1, 2]), ("y", [3], [1, 2, 3])), "application/json", [{"x": [1, 2], "y": [1, 2, 3]}]),
        (tensors(("x", [5], [1])), "application/json", [{"x": [1]}]),
        (b'{"inputs": "hello"}', "application/json", [{"inputs": "hello"}]),
        (b"wake me", "text/plain", ["wake me"]),
        (b"wake me", None, ["wake me"]),
        (b"wake me", "application/x-www-form-urlencoded", ["wake me"]),
        (b"is a=b true?", "application/x-www-form-urlencoded", ["is a=b true?"]),
        (b"age=41&city=Ulm", "application/x-www-form-urlencoded", [{"age": 41.0, "city": "Ulm"}]),
        (b"data=wake+me", "application/x-www-form-urlencoded", ["wake me"]),
        (PNG, "application/octet-stream", [PNG]),
        (MULTIPART, "multipart/form-data; boundary=x", [PNG]),
        (FIELDS, "multipart/form-data; boundary=x", [{"age": 41.0, "more": {"a": 1}}]),
        (b"{", "application/json", None),
        (b"[" * 100_000, "application/json", None),
        (b"\xff\xfe\x00", "application/octet-stream", None),
        (b"text", "application/x-protobuf; messagetype=inference.ModelInferRequest", None),
        (b"nothing", "multipart/form-data; boundary=x", None),
    ],
)  # fmt: skip
def test_rows_of_a_body(body: bytes, content_type: str | None, rows: list[Any] | None) -> None:
    """A body is the rows that its protocol carries, or cannot be read."""
    assert parts_of(body, content_type) == rows
