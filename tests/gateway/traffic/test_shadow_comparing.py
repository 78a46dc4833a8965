"""Answers of a copy beside the base's: by rows, by shape as the base's answers were seen, and by decision."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, encode_answers
from marway_gateway.traffic.shadow.comparing import AnswerBody, Compared, compare_bodies
from marway_gateway.traffic.shadow.shapes import BaseShape

JSON = "application/json"


def said(value: Any, status: int = 200, media: str | None = JSON) -> AnswerBody:
    return AnswerBody(status, json.dumps(value).encode(), media)


def envelope(*values: Any, failed: int = 0) -> AnswerBody:
    rows = [Answer(200, json.dumps(each).encode(), "json", JSON) for each in values]
    rows += [Answer(500, b"KeyError", "error")] * failed
    return AnswerBody(200, encode_answers(rows), ROWS_CONTENT_TYPE)


def compare(base: AnswerBody, candidate: AnswerBody, decision: str | None = None, row: int = 0) -> Compared:
    return compare_bodies(base, candidate, decision, row)


def test_rows_of_a_request() -> None:
    """One row stands for a request of many, so that the part of rows that disagree is right over many requests."""
    base, other = envelope(*"aaaa"), envelope(*"aaba")
    said_by_row = [compare(base, other, row=row).agrees for row in range(8)]
    assert said_by_row == [True, True, False, True] * 2
    compared = compare(base, other)
    assert (compared.rows, compared.failed, compared.difference is None) == (4, False, False)
    broken = compare(base, envelope(*"aaa", failed=1))
    assert (broken.failed, broken.base_failed, broken.agrees) == (True, False, None)
    fewer = compare(base, envelope(*"aaa"))
    assert (fewer.agrees, fewer.shape) == (False, "4 answers are now 3")
    assert compare(base, AnswerBody(200, b"MWE1?", ROWS_CONTENT_TYPE)).failed


def test_rows_within_one_document() -> None:
    """Of tensors with a row each, and of predictions, one row stands for the request too; the datatype is a shape."""

    def v2(values: list[list[float]], datatype: str = "FP32") -> AnswerBody:
        shape = list(np.shape(values))
        data = [each for row in values for each in row]
        return said({"outputs": [{"name": "y", "datatype": datatype, "shape": shape, "data": data}]})

    base, other = v2([[0.9, 0.1], [0.2, 0.8]]), v2([[0.7, 0.3], [0.8, 0.2]])
    assert [compare(base, other, row=row).agrees for row in (0, 1, 2)] == [True, False, True]
    assert compare(base, other).shape is None
    assert "datatype" in (compare(base, v2([[0.9, 0.1], [0.2, 0.8]], "FP64")).shape or "")
    predictions = compare(said({"predictions": ["a", "b"]}), said({"predictions": ["a", "c"]}), row=1)
    assert predictions.agrees is False


def test_text_bytes_and_numbers_that_are_none() -> None:
    """Text decides, bytes are the same or not, and NaN is found on either side; an error is no answer."""
    text = AnswerBody(200, b"joke", "text/plain")
    assert compare(text, text).agrees is True
    assert compare(text, AnswerBody(200, b"song", "text/plain")).agrees is False
    assert compare(text, said("joke")).shape is not None
    picture = AnswerBody(200, b"\x89PNG\xff", "image/png")
    assert compare(picture, picture).difference is None
    assert (compare(picture, picture).finite, compare(picture, text).agrees) == (None, False)
    nan = compare(said({"score": 0.5}), said({"score": float("nan")}))
    assert (nan.base_finite, nan.finite) == (True, False)
    assert compare(said({"a": 1}, status=500), said({"a": 1})).base_failed
    assert compare(said({"best": "a", "took": 1}), said({"best": "a", "took": 2}), "best").agrees is True


def test_shape_is_what_the_base_was_seen_to_answer() -> None:
    """Keys that are values, and fields for some inputs, are no other shape; a field that is always gone or new is."""
    shape = BaseShape()

    def differs(base: Any, candidate: Any) -> bool | None:
        return shape.differs(compare(said(base), said(candidate)))

    first = [differs({"label": "a", "why": "x"}, {"lable": "a"}) for _ in range(10)]
    assert first == [None] * 10  # nothing is known of the base yet
    assert differs({"label": "a", "why": "x"}, {"lable": "a"}) is True
    assert differs({"label": "a", "why": "x"}, {"label": "b", "why": "y"}) is False
    assert differs({"label": "a"}, {"label": "a"}) is False
    assert differs({"label": "a", "why": "x"}, {"label": "a"}) is False  # as the base itself did once
    assert differs({"label": "a"}, {"label": 7}) is True
    assert differs({"label": None, "why": "x"}, {"label": None, "why": "x", "score": 1}) is True
    assert shape.differs(compare(said({"label": "a"}), AnswerBody(200, b"a", "text/plain"))) is True
