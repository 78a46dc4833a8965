from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marway_archiver.testing import assert_batch_correct, json_row, text_row
from support.trained import Served, served

TEXT = "wake me up"
NUMBERS_MODEL = """\
import torch


class Net(torch.nn.Module):
    input_shape = (3,)

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 5, bias=False)

    def forward(self, numbers):
        return self.layer(numbers)
"""


@pytest.fixture(scope="module")
def numbers(unpacked: Callable[[str, str], Path]) -> Iterator[Served]:
    with served(unpacked("embedding", NUMBERS_MODEL)) as handler:
        yield handler


@pytest.mark.parametrize(
    "row",
    [
        {"data": TEXT},
        {"body": TEXT.encode()},
        {"data": json.dumps(TEXT)},
        {"data": {"text": TEXT}},
        {"data": [TEXT]},
        {"data": json.dumps({"instances": [{"text": TEXT}]}).encode()},
        {"text": TEXT.encode(), "language": b"en"},
    ],
)
def test_a_text_gets_one_vector_of_length_1_in_every_accepted_form(embedding: Served, row: dict[str, Any]) -> None:
    """Bytes, text, JSON and form fields with one text get the same vector, whose Euclidean length is 1."""
    answers = embedding.ask(row)
    vector = answers.bodies[0]["embedding"]
    assert len(vector) == 8
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    assert answers.bodies == embedding.ask({"data": TEXT}).bodies
    assert (answers.statuses, answers.content_types) == ([200], ["application/json"])


@pytest.mark.parametrize("value", [[1, 2, 3], [[1.0, 2.0, 3.0]], {"data": [1, 2, 3]}, b"[1, 2, 3]", "[1,2,3]"])
def test_numbers_get_a_vector_where_the_model_takes_numbers(numbers: Served, value: Any) -> None:
    """Lists of numbers, as objects or as JSON, get one vector of length 1."""
    (body,) = numbers.ask({"data": value}).bodies
    assert math.hypot(*body["embedding"]) == pytest.approx(1, abs=1e-6)
    assert body == numbers.ask({"data": [1, 2, 3]}).bodies[0]


def test_batches_answer_as_single_calls_do(embedding: Served, numbers: Served) -> None:
    """Texts and numbers, with bad rows among them, are answered in batches as alone."""
    assert_batch_correct(embedding.loaded, [text_row("a"), text_row("some longer text"), json_row(7), json_row(["b"])])
    assert_batch_correct(numbers.loaded, [json_row([1, 2, 3]), json_row([-1, 0, 3]), json_row([1, 2])])


def test_a_batch_is_one_forward_pass(embedding: Served) -> None:
    """N rows run the model once."""
    passes: list[int] = []
    hook = embedding.handler.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        embedding.ask(*[{"data": text} for text in ("a", "b", "c")])
    finally:
        hook.remove()
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        ("  ", "empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"text": "wake', "not valid JSON"),
        ({"query": TEXT}, "none of the keys"),
        (["a", "b"], "list holds 2 items"),
        ({"text": 7}, "type int"),
        (b'"\\ud800"', "not valid Unicode"),
        ("a" * 20_001, "the limit is 20000"),
    ],
)
def test_a_bad_text_alone_says_what_is_wrong(embedding: Served, value: Any, reason: str) -> None:
    """A row without a text gets status 400 with the reason, and its neighbour its vector."""
    answers = embedding.ask({"data": value}, {"data": TEXT})
    assert answers.statuses == [400, 200]
    assert reason in answers.bodies[0]["error"]
    assert "send one text" in answers.bodies[0]["error"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2], "shape 2"),
        ([[1], [2, 3]], "not all of one length"),
        (["a", "b", "c"], "not a number"),
        ("wake me", "not valid JSON"),
        ([1, 2, 1e300], "out of range"),
        (json.dumps([1, 2, float("nan")]), "out of range"),
    ],
)
def test_bad_numbers_alone_say_what_is_wrong(numbers: Served, value: Any, reason: str) -> None:
    """A row without fitting numbers gets status 400 with the reason, and its neighbour its vector."""
    answers = numbers.ask({"data": value}, {"data": [1, 2, 3]})
    assert answers.statuses == [400, 200]
    assert reason in answers.bodies[0]["error"]
    assert "send 3 numbers" in answers.bodies[0]["error"]


def test_a_vector_without_direction_fails_alone(numbers: Served) -> None:
    """Zeros cannot be brought to length 1: that row gets status 500."""
    answers = numbers.ask({"data": [0, 0, 0]}, {"data": [1, 2, 3]})
    assert answers.statuses == [500, 200]


def test_no_rows_give_no_answers(embedding: Served) -> None:
    """An empty batch is answered with an empty list."""
    assert embedding.ask().bodies == []


def test_a_model_that_takes_neither_stops_the_load(unpacked: Callable[[str, str], Path]) -> None:
    """A model with neither encode nor input_shape is refused when the archive is loaded."""
    directory = unpacked("embedding", NUMBERS_MODEL.replace("input_shape", "shape"))
    with pytest.raises(RuntimeError, match="neither encode"), served(directory):
        pass
