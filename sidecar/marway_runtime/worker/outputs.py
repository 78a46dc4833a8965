"""What handlers answer, as `Answer` values, and the message that carries them to TorchServe's front end."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import Any, Final

import torch
from ts.context import RequestProcessor
from ts.protocol.otf_message_handler import create_predict_response

from marway.answers.encoding import Nonfinite, answer_json, as_tensor
from marway.wire.answer_headers import content_type_fault, header_fault, status_fault
from marway.wire.envelope import Answer, answer_size, encode_answers

__all__ = ["MAX_RESPONSE_BYTES_ENV", "Frame", "answer_of", "failed", "within"]

logger = logging.getLogger(__name__)

MAX_RESPONSE_BYTES_ENV: Final = "MARWAY_MAX_RESPONSE_BYTES"
"""Environment variable by which the runtime says `max_response_size`; taken out before a handler runs."""
_FRAME_BYTES: Final = 4096
"""Room for what TorchServe's message holds beside the answers."""
_OUT_OF_RESOURCES: Final = 507


class Frame:
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

    def message(self, answers: Sequence[Answer], *, more: bool = False) -> bytearray:
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


def answer_of(context: Any, index: int, output: object, *, nonfinite: Nonfinite = "error") -> Answer:
    """Return the answer to row ``index``: the output, with the status and headers that the handler set.

    What the handler set that cannot be sent makes it an error, of this row alone.

    Args:
        context: The handler's.
        index: Which row.
        output: What the handler returned for it.
        nonfinite: What becomes of numbers that JSON has not.
    """
    try:
        status, content_type, headers = _set_by_handler(context, index)
    except Exception as exc:  # whatever the handler's own values do when they are read
        logger.error("The handler's status or headers cannot be sent.", exc_info=True)
        return Answer(500, f"what the handler set cannot be sent: {exc}".encode(errors="replace"), "error")
    try:
        body, kind = _encoded(output, nonfinite)
    except (RuntimeError, TypeError, ValueError) as exc:
        logger.error("The handler's answer cannot be encoded.", exc_info=True)
        return Answer(500, f"the handler's answer cannot be encoded: {exc}".encode(), "error")
    return Answer(status, body, kind, content_type, headers)


def failed(rows: int, status: int, message: str) -> list[Answer]:
    """Return the same failure for each of ``rows``."""
    return [Answer(status, message.encode(errors="replace"), "error")] * rows


def within(answers: Sequence[Answer], limit: int | None) -> list[Answer]:
    """Return ``answers`` with those replaced by errors that would make the message larger than ``limit`` bytes.

    One byte too many, and the front end drops the connection, kills the worker and tells the caller nothing.
    """
    if limit is None:
        return list(answers)
    kept: list[Answer] = []
    size = _FRAME_BYTES
    for answer in answers:
        taken = answer
        own = answer_size(answer)
        if size + own > limit:
            message = f"the answer of {len(answer.body)} bytes is too large: the model server sends {limit} at most"
            taken = Answer(_OUT_OF_RESOURCES, message.encode(), "error")
            own = answer_size(taken)
        size += own
        kept.append(taken)
    return kept


def _set_by_handler(context: Any, index: int) -> tuple[int, str | None, dict[str, str]]:
    """Return the status, content type and other headers that the handler set.

    Raises:
        ValueError: They cannot be sent. The phrase beside the status never is.
        Exception: They are no numbers or texts.
    """
    said, _ = context.get_response_status(index)
    status = int(said or 200)
    set_headers = context.get_response_headers(index)
    headers = {str(name): str(value) for name, value in set_headers.items()} if set_headers else {}
    content_type = None
    for name in [name for name in headers if name.lower() == "content-type"]:
        content_type = headers.pop(name)
    fault = status_fault(status) or content_type_fault(content_type) or header_fault(headers)
    if fault is not None:
        raise ValueError(fault)
    return status, content_type, headers


def _encoded(output: object, nonfinite: Nonfinite) -> tuple[bytes, str]:
    """Return the handler's answer encoded as TorchServe encodes it, and what it was."""
    if isinstance(output, (bytes, bytearray)):
        return bytes(output), "bytes"
    if isinstance(output, str):
        return output.encode(), "text"
    tensor = as_tensor(output)
    if tensor is not None:
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        return buffer.getvalue(), "tensor"
    return answer_json(output, nonfinite=nonfinite), "json"
