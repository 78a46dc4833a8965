"""Classifies pictures: put your own model into `initialize` and `predict`."""

import io
from typing import Any

import numpy as np
from PIL import Image

SIZE = (32, 32)


class Handler:
    """A PNG or JPEG picture in, a label and its score out."""

    def initialize(self, context: Any) -> None:
        """Load the model, once for each worker. Files of the archive are in `model_dir`."""
        self.directory = context.system_properties["model_dir"]
        self.initialized = True

    def predict(self, pictures: list[Any]) -> list[dict[str, Any]]:
        """Return an answer to each picture: all at once, as one batch of the model."""
        brightness = np.stack(pictures).mean(axis=(1, 2, 3))
        return [
            {"label": "bright" if share >= 0.5 else "dark", "score": round(max(share, 1 - share), 4)}
            for share in brightness.tolist()
        ]

    def read(self, value: Any) -> Any:
        """Return the pixels of a request, float32 of shape (32, 32, 3), 0 to 1. A ValueError says that it has none."""
        try:
            with Image.open(io.BytesIO(value), formats=("PNG", "JPEG")) as picture:
                return np.asarray(picture.convert("RGB").resize(SIZE), np.float32) / 255
        except (OSError, TypeError):
            raise ValueError("send the bytes of a PNG or JPEG picture: curl --data-binary @FILE") from None

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
