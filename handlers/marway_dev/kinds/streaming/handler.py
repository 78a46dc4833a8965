"""Answers in pieces: put your own model into `initialize` and `pieces`."""

from collections.abc import Iterator
from typing import Any

from ts.handler_utils.utils import send_intermediate_predict_response


class Handler:
    """A text in, its words out one by one, each as soon as it is made.

    Packing its examples shows that it answers in pieces: `marway publish` declares the version streaming by itself.
    """

    def initialize(self, context: Any) -> None:
        """Load the model, once for each worker. Files of the archive are in `model_dir`."""
        self.directory = context.system_properties["model_dir"]
        self.initialized = True

    def pieces(self, text: str) -> Iterator[str]:
        """Yield the answer to a text in pieces, each as soon as it is there."""
        for word in text.split():
            yield f"{word.upper()} "

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each row; of a row that comes alone, as rows of streams do, the pieces are sent as they are made."""
        answers: list[Any] = []
        for index, row in enumerate(data):
            try:
                text = self.read(row.get("data", row.get("body")))
            except ValueError as error:
                context.set_response_status(code=400, phrase="Bad Request", idx=index)
                answers.append({"error": str(error)})
                continue
            unsent = ""
            for piece in self.pieces(text):
                if len(data) > 1:
                    unsent += piece
                else:
                    send_intermediate_predict_response([piece], context.request_ids, "Intermediate", 200, context)
            answers.append(unsent)
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
