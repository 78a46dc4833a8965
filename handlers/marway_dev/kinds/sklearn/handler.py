"""Classifies rows of numbers with a scikit-learn model, which `train.py` makes."""

import json
from pathlib import Path
from typing import Any

import joblib

WIDTH = 4


class Handler:
    """A row of numbers in, a class and the probabilities of all out; all rows of a batch in one call."""

    def initialize(self, context: Any) -> None:
        """Load the model, once for each worker. Files of the archive are in `model_dir`."""
        # joblib runs what the file says: load only files that you made yourself.
        self.model = joblib.load(Path(context.system_properties["model_dir"]) / "model.joblib")
        self.initialized = True

    def predict(self, rows: list[list[float]]) -> list[dict[str, Any]]:
        """Return an answer to each row: all at once, as one batch of the model."""
        answers = []
        for scores in self.model.predict_proba(rows).tolist():
            named = {str(name): round(score, 6) for name, score in zip(self.model.classes_, scores, strict=True)}
            answers.append({"label": max(named, key=lambda name: named[name]), "scores": named})
        return answers

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
