"""Two versions' answers to one request: decisions, shape, and the fields in which they differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marway.answers.golden import GoldenAnswer
from marway.answers.pairs import compare_pair

JSON = "application/json"


def answer(value: Any, status: int = 200) -> GoldenAnswer:
    return GoldenAnswer.of(status=status, kind="json", body=json.dumps(value).encode(), content_type=JSON)


def v2(data: list[Any], datatype: str = "FP32", name: str = "y", version: str = "1") -> dict[str, Any]:
    shape = [1, len(data)]
    return {"model_name": "m", "model_version": version, "outputs": [
        {"name": name, "datatype": datatype, "shape": shape, "data": data}
    ]}  # fmt: skip


NESTED: Any = "x"
for _ in range(400):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        ({"label": "joke", "score": 0.9}, {"label": "joke", "score": 0.5}, True),
        ({"label": "joke", "score": 0.9}, {"label": "song", "score": 0.9}, False),
        ({"joke": 0.9, "song": 0.1}, {"joke": 0.6, "song": 0.4}, True),
        ({"joke": 0.6, "song": 0.4}, {"joke": 0.4, "song": 0.6}, False),
        ({"joke": 1, "song": 0.1}, {"joke": 0.7, "song": 0.2}, True),
        ([0.1, 0.7, 0.2], [0.2, 0.5, 0.3], True),
        ([0.1, 0.7, 0.2], [0.5, 0.3, 0.2], False),
        ([{"label": "a", "score": 0.9}, {"label": "b", "score": 0.1}],
         [{"label": "a", "score": 0.8}, {"label": "c", "score": 0.2}], True),
        ([{"label": "a", "score": 0.9}, {"label": "b", "score": 0.1}],
         [{"label": "b", "score": 0.6}, {"label": "a", "score": 0.4}], False),
        ({"label": "a", "scores": {"a": 0.6, "b": 0.4}}, {"label": "a", "scores": {"a": 0.4, "b": 0.6}}, True),
        ({"best": {"a": 0.6, "b": 0.4}, "s": 0.5}, {"best": {"a": 0.4, "b": 0.6}, "s": 0.5}, False),
        ({}, {}, True),
        ({"label": "a", "score": 1}, {"label": "a", "score": 0.97}, True),
        ({"label": "a", "score": 1}, {"label": "b", "score": 0.97}, False),
        ({"label": "a"}, {"lable": "a"}, False),
        (7, 8, False),
        (True, False, False),
        (100.0, 105.0, True),
        (100.0, 120.0, False),
        (100, 105.5, True),
        ({"price": 10.0}, {"price": 10.5}, True),
        ({"price": 10.0, "tax": 1.0}, {"price": 10.5, "tax": 1.2}, True),
        (float("nan"), 1.0, False),
        ({"predictions": [{"label": "a"}, {"label": "b"}]}, {"predictions": [{"label": "a"}, {"label": "c"}]}, False),
        (v2([0.1, 0.9]), v2([0.3, 0.7], version="2"), True),
        (v2([0.1, 0.9]), v2([0.7, 0.3], version="2"), False),
        (v2([3], "INT64"), v2([4], "INT64"), False),
        (NESTED, [NESTED], False),
        ({"label": "a", "took_ms": 3, "model_version": "1"}, {"label": "a", "took_ms": 7, "model_version": "2"}, True),
        ({"text": "a" * 201, "stop": "end"}, {"text": "b" * 250, "stop": "end"}, True),
        ({"text": "a" * 201, "stop": "end"}, {"text": "b" * 250, "stop": "length"}, False),
    ],
)  # fmt: skip
def test_decisions(before: Any, after: Any, alike: bool) -> None:
    """What decides is compared: labels and whole numbers where there are any, else the highest score, else a number."""
    pair = compare_pair(answer(before), answer(after))
    assert pair.decides_otherwise is not alike
    assert (pair.decisions is None) is alike or pair.fields == ("",)
    assert compare_pair(answer(before), answer(before)).difference is None


def test_in_words() -> None:
    """What differs between two decisions is told, without what they have in common."""
    before = answer({"label": "a", "sure": True, "at": {"x": 1, "y": 2}})
    for after, said in (
        ({"label": "b", "sure": True, "at": {"x": 1, "y": 2}}, '"a" is now "b"'),
        ({"label": "a", "sure": True, "at": {"x": 1, "y": 3}}, "2 is now 3"),
        ({"label": "b", "sure": False, "at": {"x": 1, "y": 2}},
         '{"label": "a", "sure": true} is now {"label": "b", "sure": false}'),
    ):  # fmt: skip
        assert compare_pair(before, answer(after)).decisions == said


def test_declared_decision() -> None:
    """Where a rule says what the prediction is, only that decides."""
    before, after = answer({"took": 12, "best": {"name": "a"}}), answer({"took": 13, "best": {"name": "a"}})
    assert compare_pair(before, after).decides_otherwise
    pair = compare_pair(before, after, decision="best.name")
    assert (pair.decides_otherwise, pair.fields) == (False, ("took",))
    assert compare_pair(before, after, decision="max(best)").decides_otherwise is False


@pytest.mark.parametrize(
    ("before", "after", "shape"),
    [
        ({"label": "a", "score": 0.5}, {"label": "b", "score": 1}, None),
        ({"label": "a"}, {"lable": "a"}, "label is gone"),
        ({"label": "a"}, {"label": "a", "why": "x"}, "why is new"),
        ({"label": "a", "why": None}, {"label": "a", "why": "x"}, None),
        ({"score": 0.5}, {"score": "0.5"}, "score was number and is string"),
        ({"joke": 0.9, "song": 0.1}, {"joke": 0.9, "rain": 0.1}, None),
        ([1, 2], [1, 2, 3], None),
        ([{"a": 1}, {"a": 1}], [{"a": 1}, {"b": 1}], "[].a is gone"),
        ([], [1], None),
        (v2([0.5]), v2([0.5], "FP64"), "outputs[].datatype was FP32 and is FP64"),
        ({"a": [0.5]}, {"a": 0.5}, "a was list and is number"),
    ],
)
def test_shape(before: Any, after: Any, shape: str | None) -> None:
    """Fields and types are compared, and datatypes of tensors; null may be anything, and classes are no fields."""
    assert compare_pair(answer(before), answer(after)).shape == shape


def test_fields() -> None:
    """Each field that differs is named once, lists without places and tensors by their names."""
    before = {"label": "a", "items": [{"x": 1, "y": 2}, {"x": 1, "y": 2}], "score": 0.5}
    after = {"label": "b", "items": [{"x": 1, "y": 3}, {"x": 1, "y": 4}], "score": 0.500_01, "new": 1}
    assert compare_pair(answer(before), answer(after)).fields == ("label", "items[].y", "new")
    scores = {"label": "a", "scores": {"a": 0.6, "b": 0.4}}, {"label": "a", "scores": {"a": 0.7, "c": 0.3}}
    assert compare_pair(*map(answer, scores)).fields == ("scores{}",)
    assert compare_pair(answer({"x": 0.5, "y": 1.5}), answer({"x": 0.5, "y": 2.5})).fields == ("y",)
    assert compare_pair(answer(v2([1, 2], "INT64")), answer(v2([1, 3], "INT64"))).fields == ("y[]",)
    text = GoldenAnswer.of(status=200, kind="text", body=b"yes", content_type="text/plain")
    other = GoldenAnswer.of(status=200, kind="text", body=b"no", content_type="text/plain")
    pair = compare_pair(text, other)
    assert (pair.fields, pair.decisions, pair.shape) == (("",), '"yes" is now "no"', None)
    assert compare_pair(text, text.model_copy(update={"content_type": "text/html"})).shape is not None
    assert compare_pair(text, answer("yes")).shape == "text is now json"


def test_failures_and_what_is_not_finite() -> None:
    """Where one side failed the decision is another one, and nothing else is compared; NaN is told of each side."""
    good, bad, refused = answer({"a": 1}), answer({"detail": "x"}, 500), answer({"detail": "y"}, 422)
    for before, after, otherwise in ((good, bad, True), (bad, good, True), (bad, refused, False), (bad, bad, False)):
        pair = compare_pair(before, after)
        assert (pair.decides_otherwise, pair.shape, pair.fields) == (otherwise, None, ())
        assert (pair.failed, pair.base_failed) == (after.status >= 400, before.status >= 400)
    pair = compare_pair(good, answer({"a": float("nan")}))
    assert (pair.nonfinite, pair.base_nonfinite) == ("at a: NaN", None)
