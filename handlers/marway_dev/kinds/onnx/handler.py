"""Runs an ONNX model over rows of numbers, which `train.py` makes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

WIDTH = 4


class Handler:
    """A row of numbers in, numbers out; all rows of a batch in one call."""

    def initialize(self, context: Any) -> None:
        """Load the model, once for each worker. Files of the archive are in `model_dir`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # parallelism comes from workers
        file = Path(context.system_properties["model_dir"]) / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.initialized = True

    def predict(self, rows: list[list[float]]) -> list[Any]:
        """Return the model's numbers for each row: all at once, as one batch of the model."""
        (outputs,) = self.session.run(None, {self.session.get_inputs()[0].name: np.asarray(rows, np.float32)})
        numbers: list[Any] = np.asarray(outputs).tolist()
        return numbers

    def read(self, value: Any) -> list[float]:
        """Return the numbers of a request: a JSON list, or one under "data". A ValueError says that they are none."""
        if isinstance(value, bytes | bytearray):
            value = json.loads(bytes(value))
        if isinstance(value, dict):
            value = value.get("data")
        if not isinstance(value, list) or len(value) != WIDTH:
            raise ValueError(f"send {WIDTH} numbers as a JSON list")
        return [float(each) for each in value]

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
