"""The message that carries an envelope of answers to TorchServe's front end, within the size that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ts.context import RequestProcessor
from ts.protocol.otf_message_handler import create_predict_response

from marway.wire.envelope import Answer, answer_size, encode_answers
from marway.worker.calls import OUT_OF_RESOURCES

__all__ = ["AnswerMessage", "within"]

_OVERHEAD_BYTES: Final = 4096
"""Room for what TorchServe's message holds beside the answers."""


class AnswerMessage:
    """TorchServe's message around one envelope of answers; stands in for a context when the message is built.

    Args:
        request_id: TorchServe's own, by which its front end finds the call.
        stream: Whether the call is a `StreamPredictions`, which is over only when a piece says that none follows.
    """

    stopping_criteria = None

    def __init__(self, request_id: str, *, stream: bool = False) -> None:
        self._request_ids = {0: request_id}
        self._stream = stream
        self._processor = RequestProcessor({})

    def encoded(self, answers: Sequence[Answer], *, more: bool = False) -> bytearray:
        """Return the message; ``more`` says that other pieces follow."""
        context = self if self._stream else None
        self.set_response_header(0, "ts_stream_next", "false")
        packed = [encode_answers(answers)]
        message: bytearray = create_predict_response(
            packed, self._request_ids, "Prediction success", 200, context, more
        )
        return message

    def set_response_header(self, _: int, name: str, value: str) -> None:
        self._processor.add_response_property(name, value)

    def get_response_headers(self, _: int) -> dict[str, str]:
        headers: dict[str, str] = self._processor.get_response_headers()
        return headers

    def get_response_content_type(self, _: int) -> str | None:
        return None

    def get_response_status(self, _: int) -> tuple[int, str]:
        return 200, ""


def within(answers: Sequence[Answer], limit: int | None) -> list[Answer]:
    """Return ``answers`` with those replaced by errors that would make the message larger than ``limit`` bytes.

    One byte too many, and the front end drops the connection, kills the worker and tells the caller nothing.
    """
    if limit is None:
        return list(answers)
    sent: list[Answer] = []
    size = _OVERHEAD_BYTES
    for answer in answers:
        taken = answer
        own = answer_size(answer)
        if size + own > limit:
            message = f"the answer of {len(answer.body)} bytes is too large: the model server sends {limit} at most"
            taken = Answer(OUT_OF_RESOURCES, message.encode(), "error")
            own = answer_size(taken)
        size += own
        sent.append(taken)
    return sent
