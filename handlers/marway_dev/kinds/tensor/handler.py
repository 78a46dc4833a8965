"""Numbers in, numbers out: put your own model into `initialize` and `predict`, and train it in `train.py`."""

import json
from pathlib import Path
from typing import Any

import torch

WIDTH = 4


class Handler:
    """Runs a PyTorch model over rows of numbers, all rows of a batch in one forward pass."""

    def initialize(self, context: Any) -> None:
        """Load the model, once for each worker. Files of the archive are in `model_dir`."""
        directory = Path(context.system_properties["model_dir"])
        self.model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.model.load_state_dict(torch.load(directory / "weights.pt", weights_only=True))
        self.model.eval()
        self.initialized = True

    @torch.inference_mode()
    def predict(self, rows: list[list[float]]) -> list[Any]:
        """Return the model's numbers for each row: all at once, as one batch of the model."""
        numbers: list[Any] = self.model(torch.tensor(rows)).tolist()
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
