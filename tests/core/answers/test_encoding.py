"""What a handler returned, as JSON: what is taken, and what becomes of numbers that JSON has not."""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

import numpy as np
import pytest
import torch

from marway.answers.encoding import Nonfinite, answer_json, as_tensor

WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(2**60), 2**60),
        (np.bool_(True), True),
        (np.str_("ü"), "ü"),
        (np.array(["a", "b"]), ["a", "b"]),
        ({"scores": np.array([[1, 2], [3, 4]], dtype="uint16")}, {"scores": [[1, 2], [3, 4]]}),
        ({"scores": torch.tensor([0.5, 1.0])}, {"scores": [0.5, 1.0]}),
        ({"score": torch.tensor(2)}, {"score": 2}),
        ({np.int32(3): "three"}, {"3": "three"}),
        (WHEN, "2026-01-02T03:04:05+00:00"),
        ([WHEN.date(), WHEN.time(), datetime.timedelta(minutes=1)], ["2026-01-02", "03:04:05", 60.0]),
        (np.datetime64("2026-01-02T03:04:05.000000001"), "2026-01-02T03:04:05.000000001"),
        ({"labels": {"b", "a"}}, {"labels": ["a", "b"]}),
        (frozenset([2, "a", 1]), [1, 2, "a"]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"text": b"abc", "raw": b"\xff"}, {"text": "abc", "raw": {"b64": "/w=="}}),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
@pytest.mark.parametrize("nonfinite", ["error", "null", "allow"])
def test_what_handlers_return(value: Any, given: Any, nonfinite: Nonfinite) -> None:
    """numpy and torch, dates and times, sets and bytes are written as what they stand for."""
    assert json.loads(answer_json(value, nonfinite=nonfinite)) == given


def test_json_is_written_as_torchserve_writes_it() -> None:
    """What TorchServe can write is the same to the byte."""
    value = {"ü": [1, 2.5, None, True], "b": {}}
    assert answer_json(value, nonfinite="error") == json.dumps(value, indent=2).encode()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"score": float("nan")}, "it holds nan at score,"),
        ({"a": [1.0, {"b": float("inf")}]}, "it holds inf at a[1].b,"),
        ([np.array([1.0, -np.inf])], "it holds -inf at [0][1],"),
        (float("nan"), "it is nan,"),
    ],
)
def test_numbers_that_json_has_not(value: Any, where: str) -> None:
    """They are refused by their place, or null, or written as JavaScript does."""
    with pytest.raises(ValueError, match="a number that JSON has not") as caught:
        answer_json(value, nonfinite="error")
    assert where in str(caught.value)
    nulls = answer_json(value, nonfinite="null").decode()
    assert "null" in nulls
    assert "NaN" not in nulls
    assert any(word in answer_json(value, nonfinite="allow").decode() for word in ("NaN", "Infinity"))


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "object"),
        (1j, "complex"),
        ({"a": np.array([1j])}, "ndarray"),
        (endless(), "itself"),
        ({(1,): 2}, "key"),
    ],
)
def test_what_cannot_be_written(value: Any, says: str) -> None:
    """The message says what it is."""
    with pytest.raises(ValueError, match=says):
        answer_json(value, nonfinite="error")


def test_nested_too_deeply() -> None:
    """The limit of the interpreter is an error like any other."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        answer_json(value, nonfinite="error")


def test_arrays_of_numbers_are_tensors() -> None:
    """They are passed on as torch's are, whatever their strides and byte order; others are lists."""
    array = np.arange(6, dtype=">f4").reshape(2, 3)[:, ::-1]
    assert torch.equal(as_tensor(array), torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]]))
    assert as_tensor(array).dtype == torch.float32
    tensor = torch.tensor([1])
    assert as_tensor(tensor) is tensor
    for other in (np.array(["a"]), np.array([1], dtype="uint32"), np.float32(1), [1], None):
        assert as_tensor(other) is None
