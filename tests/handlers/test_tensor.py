from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marway_archiver.testing import assert_batch_correct, bytes_row, json_row
from support.trained import Served, served

NESTED = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
FLAT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
ARRAY = np.array(NESTED, np.float32)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def expected(served: Served, value: Any = NESTED) -> Any:
    with torch.inference_mode():
        return served.handler.model(torch.tensor([value], dtype=torch.float32))[0].tolist()


@pytest.mark.parametrize(
    "value",
    [
        NESTED,
        FLAT,
        [NESTED],
        [FLAT],
        [[1, 2, 3], [4, 5, 6]],
        {"data": NESTED},
        {"inputs": FLAT},
        {"instances": [NESTED]},
        {"instances": [{"data": FLAT}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": FLAT}]},
        json.dumps(NESTED),
        json.dumps({"data": FLAT}).encode(),
        bytearray(b"\xef\xbb\xbf" + json.dumps(FLAT).encode()),
        ARRAY.tobytes(),
        bytearray(ARRAY.astype("<f4").tobytes()),
        npy(ARRAY),
        npy(ARRAY.astype(np.float64)),
        npy(np.asfortranarray(ARRAY)),
    ],
)
def test_a_tensor_is_found_in_every_accepted_form(tensor: Served, value: Any) -> None:
    """Lists, bare or under a key, as objects or JSON, raw bytes and .npy files all get the model's answer."""
    answers = tensor.ask({"data": value})
    assert np.allclose(answers.bodies[0], expected(tensor))
    assert (answers.statuses, answers.content_types) == ([200], ["application/json"])


def test_a_batch_answers_as_single_calls_do_in_one_forward_pass(tensor: Served) -> None:
    """Batches of any size, with bad rows among them, answer as single calls do, and each runs the model once."""
    rows = [json_row([number, *FLAT[1:]]) for number in range(5)]
    rows += [json_row([1, 2]), bytes_row(ARRAY.tobytes(), "application/octet-stream")]
    assert_batch_correct(tensor.loaded, rows)
    passes: list[int] = []
    hook = tensor.handler.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        tensor.ask(*[{"data": [number, *FLAT[1:]]} for number in range(7)])
    finally:
        hook.remove()
    assert len(passes) == 1


BAD = [
    (b"", "empty"),
    (b" \n", "empty"),
    (b"seven", "neither JSON lists nor a tensor: it has 5 bytes"),
    (bytes(23), "it has 23 bytes"),
    (b"\x93NUMPY\x01", "cannot be read"),
    (npy(np.zeros((3, 3))), "shape 3x3"),
    (npy(np.array(["a"] * 6)), "not a number"),
    ([[1, 2], [3]], "not all of one length"),
    ([1, 2, 3], "shape 3"),
    ([], "shape 0"),
    (7, "of one number"),
    ("seven", "it has 5 bytes"),
    ([NESTED, NESTED], "shape 2x2x3"),
    ({"x": FLAT}, "none of the keys"),
    ([*FLAT[:5], "a"], "not a number"),
    ([*FLAT[:5], None], "not a number"),
    ([*FLAT[:5], 1e300], "out of range"),
    (json.dumps([*FLAT[:5], float("nan")]), "out of range"),
    (b"[" * 100_000, "neither JSON"),
    ({"data": {"data": {"data": {"data": {"data": {"data": {"data": {"data": FLAT}}}}}}}}, "nested too deeply"),
]


@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_bad_row_alone_says_what_is_wrong_and_what_is_accepted(tensor: Served, value: Any, reason: str) -> None:
    """A row without a tensor gets status 400 and a message with the reason and the accepted forms."""
    answers = tensor.ask({"data": value}, {"data": FLAT})
    assert answers.statuses == [400, 200]
    assert reason in answers.bodies[0]["error"]
    assert "shape 2x3 and type float32" in answers.bodies[0]["error"]
    assert np.allclose(answers.bodies[1], expected(tensor))


def test_requests_without_a_known_field_are_refused(tensor: Served) -> None:
    """No field at all, or several of which none is known, gets status 400; one unknown field is taken."""
    assert tensor.ask({}, {"one": b"1", "two": b"2"}, {"numbers": FLAT}).statuses == [400, 400, 200]


def test_no_rows_give_no_answers(tensor: Served) -> None:
    """An empty batch is answered with an empty list."""
    assert tensor.ask().bodies == []


TYPED = """\
import torch


class Net(torch.nn.Module):
    input_shape = (2,)
    input_dtype = "{dtype}"

    def forward(self, numbers):
        return {answer}
"""


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("int64", [1, -2], [1.5, 2]),
        ("uint8", [0, 255], [0, 256]),
        ("int8", [-128, 127], [-129, 0]),
        ("float16", [1.5, 2], [70_000, 0]),
        ("float64", [1e300, 2], ["a", 1]),
        ("bool", [True, False], [2, 0]),
    ],
)
def test_other_types_are_checked_before_they_are_converted(
    dtype: str, good: Any, bad: Any, unpacked: Callable[[str, str], Path]
) -> None:
    """A model's input_dtype rules: what fits is taken as raw bytes too, what would wrap or overflow is refused."""
    source = TYPED.format(dtype=dtype, answer="numbers[:, 0].to(torch.float64)")
    with served(unpacked("tensor", source)) as handler:
        raw = np.array(good, dtype).tobytes()
        answers = handler.ask({"data": good}, {"data": raw}, {"data": bad})
        assert answers.statuses == [200, 200, 400]
        assert answers.bodies[0] == answers.bodies[1] == float(good[0])


def test_an_answer_that_json_has_no_number_for_fails_alone(unpacked: Callable[[str, str], Path]) -> None:
    """A row whose answer is NaN or infinite gets status 500, and its neighbour its answer."""
    with served(unpacked("tensor", TYPED.format(dtype="float32", answer="numbers / numbers"))) as handler:
        answers = handler.ask({"data": [1, 0]}, {"data": [1, 2]})
        assert answers.statuses == [500, 200]
        assert "not finite" in answers.bodies[0]["error"]


@pytest.mark.parametrize(
    ("dtype", "answer", "message"),
    [("complex64", "numbers", "none of float32"), ("float32", "numbers.sum()", "not one answer a row")],
)
def test_a_model_that_does_not_fit_stops_the_load(
    dtype: str, answer: str, message: str, unpacked: Callable[[str, str], Path]
) -> None:
    """A type that cannot be sent, or one answer for all rows, is refused when the archive is loaded."""
    directory = unpacked("tensor", TYPED.format(dtype=dtype, answer=answer))
    with pytest.raises(RuntimeError, match=message), served(directory):
        pass
