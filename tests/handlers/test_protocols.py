"""Tensors of the standard protocols and the shipped handlers: N rows in, and numerically equal answers out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marway.records import Signature, TensorSpec
from marway.worker.requests import request_of
from marway_http.tensors.datatypes import DATATYPES
from marway_http.tensors.outputs import outputs_of
from marway_http.tensors.rows import rows_of
from marway_http.tensors.tensor import Tensor
from support.trained import Served, served

SAMPLES = Path(__file__).parents[2] / "examples" / "digits" / "samples"
NUMPY = {"BOOL": "bool", "INT8": "int8", "INT64": "int64", "UINT8": "uint8", "FP16": "float16", "FP64": "float64"}
ECHO = """\
import torch


class Net(torch.nn.Module):
    input_shape = (2, 3)
    input_dtype = "{dtype}"

    def forward(self, tensor):
        return tensor
"""


def tensor_of(array: Any, datatype: str) -> Tensor:
    """Return an array as an input, read from its bytes."""
    kind = DATATYPES[datatype]
    return Tensor("x", kind, array.shape, kind.unpack(array.tobytes(), count=array.size, where="x"))


def texts(*values: bytes) -> Tensor:
    return Tensor("x", DATATYPES["BYTES"], (len(values),), values)


def bodies(handler: Served, tensor: Tensor) -> list[Any]:
    """Return what a handler answers to the rows of an input, each as a worker gives it."""
    answers = handler.ask(*[request_of(row).inputs() for row in rows_of([tensor])])
    assert answers.statuses == [200] * tensor.rows, answers.bodies
    return answers.bodies


@pytest.fixture(scope="module", params=["bool", "int8", "int64", "uint8", "float16", "float64"])
def echo(request: pytest.FixtureRequest, unpacked: Callable[[str, str], Path]) -> Iterator[tuple[str, Served]]:
    """The tensor handler with a model that gives back what it gets, for each type of number."""
    with served(unpacked("tensor", ECHO.format(dtype=request.param))) as handler:
        yield request.param, handler


def test_every_number_comes_back_from_the_tensor_handler(echo: tuple[str, Served]) -> None:
    """Values of each datatype, the extreme ones too, come back equal, bit for bit."""
    dtype, handler = echo
    datatype = next(name for name, known in NUMPY.items() if known == dtype)
    if dtype == "bool":
        flat = [True, False, False, True, True, False] * 2
    elif dtype.startswith("float"):
        flat = [0.1, -0.0, np.finfo(dtype).max, np.finfo(dtype).tiny, 1 / 3, -7] * 2
    else:
        flat = [np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1, 2, 3] * 2
    array = np.array(flat, dtype).reshape(2, 2, 3)
    spec = TensorSpec(name="y", datatype=datatype, shape=(-1, 2, 3))
    (output,) = outputs_of(bodies(handler, tensor_of(array, datatype)), Signature(outputs=(spec,)))
    assert (output.datatype.name, output.shape) == (datatype, (2, 2, 3))
    assert output.datatype.pack(output.values) == array.tobytes()


def test_bytes_of_tensors_reach_the_tensor_handler(tensor: Served) -> None:
    """BYTES elements that are JSON, raw values or .npy files are rows like those of numbers."""
    array = np.array([[1, 2.5, -3], [4, 5, 6]], np.float32)
    npy = io.BytesIO()
    np.save(npy, array)
    elements = texts(json.dumps(array.tolist()).encode(), array.tobytes(), npy.getvalue())
    expected = bodies(tensor, tensor_of(array[None], "FP32"))
    assert np.allclose(bodies(tensor, elements), expected * 3)


@pytest.mark.parametrize("datatype", ["UINT8", "INT64", "FP16", "FP64"])
def test_pixels_reach_the_image_classifier(digits: Served, datatype: str) -> None:
    """Pixels of any datatype, and the bytes of a picture, are classified as the handler's own forms are."""
    pixels = np.array([json.loads((SAMPLES / f"{digit}.json").read_text()) for digit in (0, 4, 7)])
    made = bodies(digits, tensor_of(pixels.astype(NUMPY[datatype]), datatype))
    assert [body["label"] for body in made] == ["0", "4", "7"]
    assert made == digits.ask(*[{"data": each} for each in pixels.tolist()]).bodies
    (picture,) = bodies(digits, texts((SAMPLES / "7.png").read_bytes()))
    assert picture["label"] == "7"


def test_texts_reach_the_text_classifier(intent: Served) -> None:
    """Elements of BYTES are texts, in shape [N] and [N, 1]."""
    values = [b"wake me up at six", "erzähl mir einen witz".encode()]
    expected = intent.ask(*[{"data": value} for value in values]).bodies
    assert bodies(intent, texts(*values)) == expected
    assert bodies(intent, Tensor("x", DATATYPES["BYTES"], (2, 1), values)) == expected


def test_texts_and_numbers_reach_the_embedding_handler(embedding: Served, unpacked: Callable[[str, str], Path]) -> None:
    """Texts come as BYTES, numbers as any datatype."""
    made = bodies(embedding, texts(b"one", b"two"))
    assert made == embedding.ask({"data": "one"}, {"data": "two"}).bodies
    numbers = """\
import torch


class Net(torch.nn.Module):
    input_shape = (3,)

    def forward(self, numbers):
        return numbers
"""
    with served(unpacked("embedding", numbers)) as handler:
        for datatype in ("BOOL", "INT64", "FP16"):
            (answer,) = bodies(handler, tensor_of(np.array([[0, 0, 1]], NUMPY[datatype]), datatype))
            assert answer == {"embedding": [0.0, 0.0, 1.0]}
