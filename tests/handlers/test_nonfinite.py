"""Answers that are not finite: every shipped handler says so, as it does in docs/archives.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from marway_archiver.testing import json_row, text_row
from support.trained import Served, lay_out, served

HEADER = "x-marway-nonfinite"
GOOD, BAD = "fine", "nan"
TEXTS = """\
import torch


class Net(torch.nn.Module):
    def encode(self, texts):
        return (torch.tensor([[float("nan") if "nan" in text else 1.0, 2.0] for text in texts]),)

    def forward(self, numbers):
        return numbers
"""
PICTURES = """\
import torch


class Net(torch.nn.Module):
    input_size = (1, 2)
    max_value = 1.0

    def forward(self, pixels):
        return (1 / pixels - 1 / pixels).flatten(1)
"""
NUMBERS = """\
import torch


class Net(torch.nn.Module):
    input_shape = (2,)

    def forward(self, numbers):
        return numbers / numbers.flip(1)
"""


@contextmanager
def handler_of(name: str, source: str, directory: Path) -> Iterator[Served]:
    files = directory / "files"
    files.mkdir()
    (files / "model.py").write_text(source)
    (files / "labels.json").write_text(json.dumps(["a", "b"]))
    torch.save({}, files / "weights.pt")
    unpacked = directory / "archive"
    unpacked.mkdir()
    lay_out(unpacked, name, tuple(files.iterdir()))
    with served(unpacked) as handler:
        yield handler


@pytest.mark.parametrize(
    ("name", "source", "row", "good", "bad"),
    [
        ("text_classifier", TEXTS, text_row, GOOD, BAD),
        ("streaming_text", TEXTS, text_row, GOOD, BAD),
        ("embedding", TEXTS, text_row, GOOD, BAD),
        ("image_classifier", PICTURES, json_row, [0.5, 0.5], [0.0, 0.5]),
        ("tensor", NUMBERS, json_row, [1.0, 2.0], [1.0, 0.0]),
    ],
)
def test_every_handler_reports_rows_that_are_not_finite(
    name: str, source: str, row: Callable[..., object], good: object, bad: object, tmp_path: Path
) -> None:
    """In a batch the rows concerned have an error and the header, and their neighbours neither."""
    with handler_of(name, source, tmp_path) as handler:
        answers = handler.loaded.ask(row(good), row(bad), row(good), row(bad))  # type: ignore[arg-type]
    assert [HEADER in answer.headers for answer in answers] == [False, True, False, True]
    for answer in answers:
        reported = HEADER in answer.headers
        assert ("error" in answer.text) is reported
        assert "NaN" not in answer.text
        assert answer.status == (500 if reported and name != "streaming_text" else 200)


def test_a_stream_goes_on_after_a_sentence_that_is_not_finite(tmp_path: Path) -> None:
    """The sentence has an error for its label, the others have theirs, and the whole text has the error too."""
    with handler_of("streaming_text", TEXTS, tmp_path) as handler:
        first, second = handler.loaded.ask(text_row("it is fine. it is nan. fine again."), text_row("fine"))
    lines = [json.loads(line) for line in first.text.splitlines()]
    assert [sorted(line.keys() & {"label", "error"}) for line in lines] == [["label"], ["error"], ["label"], ["error"]]
    assert lines[-1] == {"sentences": 3, "error": "the model's scores are not finite"}
    assert HEADER in first.headers
    assert HEADER not in second.headers


def test_a_vector_of_noughts_has_no_direction_and_is_finite(tmp_path: Path) -> None:
    """An embedding that cannot be normalized is an error, and none of a number that is not finite."""
    zeros = TEXTS.replace('[float("nan") if "nan" in text else 1.0, 2.0]', "[0.0 if text == 'none' else 1.0, 0.0]")
    assert zeros != TEXTS
    with handler_of("embedding", zeros, tmp_path) as handler:
        one, other = handler.loaded.ask(text_row("none"), text_row("some"))
    assert (one.status, other.status) == (500, 200)
    assert HEADER not in one.headers
    assert np.isfinite(other.json()["embedding"]).all()
