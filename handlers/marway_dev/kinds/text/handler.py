"""Classifies texts: put your own model into `initialize` and `predict`."""

from typing import Any


class Handler:
    """A text in, a label and its score out."""

    def initialize(self, context: Any) -> None:
        """Load the model, once for each worker. Files of the archive are in `model_dir`."""
        self.directory = context.system_properties["model_dir"]
        self.questions = ("who", "what", "when", "where", "why", "how", "is", "are", "can", "do")
        self.initialized = True

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return an answer to each text: all at once, as one batch of the model."""
        answers = []
        for text in texts:
            asks = text.rstrip().endswith("?") or text.lower().split()[0] in self.questions
            answers.append({"label": "question" if asks else "statement", "score": 0.9})
        return answers

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
