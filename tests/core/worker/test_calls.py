"""What becomes of the status and headers that a handler sets, in the worker."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from marway.wire.envelope import Answer, decode_answers, encode_answers
from marway.wire.headers import HEADER_BYTES_MAX, HEADERS_MAX
from marway.worker.calls import answer_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it is imported
    from ts.context import Context, RequestProcessor


def context(status: Any = 200, phrase: str = "", **headers: Any) -> Any:
    """Return a context of one row, with what its handler set."""
    made = Context("m", "/nowhere", {}, 1, None, "1.0")
    made.request_processor = [RequestProcessor({})]
    made.set_response_status(status, phrase)
    for name, value in headers.items():
        made.set_response_header(0, name, value)
    return made


class Broken:
    """What a handler may set by mistake."""

    def __str__(self) -> str:
        raise ZeroDivisionError("no text")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (context(), Answer(200, b"x", "text")),
        (context(None), Answer(200, b"x", "text")),
        (context(404.0, "y" * 10_000_000), Answer(404, b"x", "text")),
        (context(**{"Content-Type": "text/x", "X-A": 1}), Answer(200, b"x", "text", "text/x", {"X-A": "1"})),
    ],
    ids=["nothing", "no status", "a huge phrase", "headers"],
)
def test_what_can_be_sent_is(given: Any, expected: Answer) -> None:
    """The status, the content type and the headers of the handler are the answer's; a phrase is nobody's."""
    assert answer_of(given, 0, "x") == expected


@pytest.mark.parametrize(
    "given",
    [
        context("no number"),
        context(float("nan")),
        context(99),
        context(10**5000),
        context(**{f"x-{at}": "1" for at in range(HEADERS_MAX + 1)}),
        context(x="y" * HEADER_BYTES_MAX),
        context(x="a\r\nb: c"),
        context(**{"x\r\n": "a"}),
        context(x="\u65e5\u672c"),
        context(x=Broken()),
        context(**{"content-type": "x" * 10_000_000}),
    ],
)
def test_what_cannot_be_sent_is_that_rows_error(given: Any) -> None:
    """A status or headers that cannot be sent end neither the worker nor another row's answer."""
    answer = answer_of(given, 0, "x")
    assert (answer.status, answer.kind, answer.headers) == (500, "error", {})
    assert len(answer.body) < 500
    assert decode_answers(encode_answers([answer])) == [answer]
