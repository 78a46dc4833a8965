"""Turns texts into vectors: put your own model into `initialize` and `predict`."""

from typing import Any
from zlib import crc32

import numpy as np

WIDTH = 64


class Handler:
    """A text in, a vector of length 1 out: texts that share three letters in a row lie closer together."""

    def initialize(self, context: Any) -> None:
        """Load the model, once for each worker. Files of the archive are in `model_dir`."""
        self.directory = context.system_properties["model_dir"]
        self.initialized = True

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return a vector for each text: all at once, as one batch of the model."""
        counts = np.zeros((len(texts), WIDTH), np.float32)
        for row, text in enumerate(texts):
            padded = f" {text.lower()} "
            for start in range(len(padded) - 2):
                counts[row, crc32(padded[start : start + 3].encode()) % WIDTH] += 1
        vectors = counts / np.linalg.norm(counts, axis=1, keepdims=True)
        return [{"embedding": [round(number, 6) for number in vector]} for vector in vectors.tolist()]

    def read(self, value: Any) -> str:
        """Return the text of a request: plain, as JSON, or under "text". A ValueError says that it is none."""
        if isinstance(value, bytes | bytearray):
            value = bytes(value).decode(errors="replace")
        if isinstance(value, dict):
            value = value.get("text")
        if not isinstance(value, str) or not value.strip():
            raise ValueError('send a text, plain or as {"text": "..."}')
        return value

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer N rows with N answers, in order; a row that is no input is answered 400 by itself."""
        answers: list[Any] = [None] * len(data)
        inputs: dict[int, Any] = {}
        for index, row in enumerate(data):
            try:
                inputs[index] = self.read(row.get("data", row.get("body")))
            except ValueError as error:
                context.set_response_status(code=400, phrase="Bad Request", idx=index)
                answers[index] = {"error": str(error)}
        if inputs:
            for index, answer in zip(inputs, self.predict(list(inputs.values())), strict=True):
                answers[index] = answer
        return answers
