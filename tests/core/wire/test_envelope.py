"""The envelope carries rows there and answers back, unchanged."""

from __future__ import annotations

import pytest

from marway.wire.envelope import Answer, Part, Row, decode_answers, decode_rows, encode_answers, encode_rows
from marway.wire.measurements import Measurement

ROWS = [
    Row("first", [Part("data", b"\x00\xff" * 1000, "image/png")], {"x-request-id": "first"}),
    Row("zweite ✓", [Part("a", b"", None), Part("ä", "ü".encode(), "text/plain")]),
    Row("none", []),
]
ANSWERS = [
    Answer(200, b"{}", "json", "application/json", {"x-a": "1"}),
    Answer(418, b"", "text"),
    Answer(500, "ValueError: ü".encode(), "error"),
]


def test_rows_come_out_as_they_went_in() -> None:
    """Ids, headers, names, content types and bytes of any number of rows survive."""
    assert decode_rows(bytearray(encode_rows(ROWS))) == ROWS
    assert decode_rows(encode_rows([])) == []


def test_answers_come_out_as_they_went_in() -> None:
    """Status, kind, content type, headers and bytes of any number of answers survive."""
    assert decode_answers(encode_answers(ANSWERS)) == ANSWERS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MWE1",
        b"MWE2\x00\x00\x00\x02[]",
        b"plain text of a handler",
        encode_rows(ROWS)[:-1],
        encode_rows(ROWS) + b"x",
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    """Anything else, cut short or with bytes left over, raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        decode_rows(data)


def test_measurements_travel_with_an_answer() -> None:
    """What a handler measured arrives as it was; what is no measurement makes the envelope none."""
    measured = [Measurement("gauge", "Left", "ms", (("kind", "ü"),), 0.5)]
    sent = [Answer(200, b"a", "json", measured=measured), Answer(200, b"b", "json")]
    (first, second) = decode_answers(encode_answers(sent))
    assert (list(first.measured), second.measured) == (measured, ())
    for good, bad in ((b"gauge", b"gouge"), (b"0.5", b"nul"), (b'"kind"', b"[1,22]")):
        with pytest.raises(ValueError, match=r"measurement|Expecting"):
            decode_answers(encode_answers(sent).replace(good, bad))
