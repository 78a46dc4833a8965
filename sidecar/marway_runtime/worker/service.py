"""Marway's service in place of `ts.service.Service`: unpacks an envelope into rows, and answers row by row.

Handlers are called by `marway.worker`, with the model's real name where TorchServe knows the version by its id. Their
answers go back in pieces where the version is declared streaming. Calls without an envelope are TorchServe's own
matter.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ts import model_loader
from ts.context import RequestProcessor
from ts.handler_utils import utils as handler_utils
from ts.protocol import otf_message_handler
from ts.protocol.otf_message_handler import create_predict_response
from ts.service import Service
from ts.utils.util import PredictionException

from marway.wire.envelope import KEY, Answer, Row, answer_size, encode_answers
from marway.wire.headers import REQUEST_ID
from marway.wire.request import correlation_id
from marway.worker.calls import OUT_OF_RESOURCES, answer_of, call_handler, declare_metrics
from marway.worker.requests import request_of
from marway_runtime.worker import custom_metrics, field_reader, log_records
from marway_runtime.worker.names import MAX_RESPONSE_BYTES_ENV

__all__ = ["MarwayService", "install", "within"]

logger = logging.getLogger(__name__)

_send_plain_piece = handler_utils.send_intermediate_predict_response
_OVERHEAD_BYTES: Final = 4096
"""Room for what TorchServe's message holds beside the answers."""
_DESCRIBED_BYTES_MAX: Final = 1024
"""More than an answer without headers takes beside its body and its content type, of which JSON can make six times as
much."""

Send = Callable[[Answer], None]


def install() -> None:
    """Put `MarwayService`, its reading and quiet logging in place; call it before TorchServe's worker script runs."""
    model_loader.Service = MarwayService
    # Handlers import it from either; both must find the one that knows envelopes.
    handler_utils.send_intermediate_predict_response = _send_piece
    otf_message_handler.send_intermediate_predict_response = _send_piece
    # TorchServe logs a line for every request it receives, with the caller looked up: a tenth of a small model's time.
    otf_message_handler.logging = _QuietLogging()
    custom_metrics.install()
    field_reader.install()


class _QuietLogging:
    """The `logging` module as TorchServe's protocol code sees it: information is dropped before it costs anything."""

    def info(self, *_: object, **__: object) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        return getattr(logging, name)


class MarwayService(Service):
    """Runs the handler on the rows of an envelope."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: dict[str, Any] | None, *args: Any, **kwargs: Any
    ) -> None:
        real_name = (manifest or {}).get("model", {}).get("modelName") or model_name
        # Taken out: handlers see what computing needs and nothing else.
        limit = os.environ.pop(MAX_RESPONSE_BYTES_ENV, "")
        self._max_response_bytes = int(limit) if limit else None
        super().__init__(real_name, model_dir, manifest, *args, **kwargs)
        declare_metrics(self.context.metrics, model_dir)
        self.context.marway_send = None  # what `_send_piece` calls while an envelope is being answered

    def predict(self, batch: list[dict[str, Any]]) -> bytearray:
        """Answer one call of the front end, which holds one envelope or TorchServe's own rows."""
        rows = _packed(batch)
        if rows is None:
            return self._plain(batch)
        message = _AnswerMessage(batch[0]["requestId"].decode(), stream=rows[0].stream)
        limit = self._max_response_bytes

        def send(piece: Answer) -> None:
            self.cl_socket.sendall(message.encoded(within([piece], limit), more=True))

        return message.encoded(within(self.answered(rows, send), limit))

    def answered(self, rows: Sequence[Row], send: Send) -> list[Answer]:
        """Return the answers to the rows of one call, and with the first what was measured; ``send`` takes pieces."""
        answers = self._answer(rows, send if rows[0].stream else _not_streaming)
        log_records.answering(None)
        measured = custom_metrics.take()
        if measured:
            answers[0] = replace(answers[0], measured=measured)
        return answers

    def _answer(self, rows: Sequence[Row], send: Send) -> list[Answer]:
        context = self.context
        requests = [request_of(row) for row in rows]
        log_records.answering({index: row.request_id for index, row in enumerate(rows)})
        context.cl_socket = self.cl_socket
        context.marway_send = send
        context.marway_nonfinite = requests[0].nonfinite  # of pieces, whose row comes alone
        try:
            outcome = call_handler(self._entry_point, context, requests, RequestProcessor)
        finally:
            context.marway_send = None
        if isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome.answers

    def _plain(self, batch: list[dict[str, Any]]) -> bytearray:
        log_records.answering(lambda: _ids_of(batch))
        message = bytearray(super().predict(batch))
        log_records.answering(None)
        if self._max_response_bytes is not None and len(message) > self._max_response_bytes:
            ids = {index: row["requestId"].decode() for index, row in enumerate(batch)}
            return bytearray(create_predict_response(None, ids, "The answer is too large", OUT_OF_RESOURCES))
        return message


class _AnswerMessage:
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
    if limit is None or _surely_fit(answers, limit):
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


def _surely_fit(answers: Sequence[Answer], limit: int) -> bool:
    """Return whether answers are so small that they need not be encoded to know that they fit, as nearly all are."""
    room = limit - _OVERHEAD_BYTES
    for answer in answers:
        if answer.headers or answer.measured:
            return False
        room -= len(answer.body) + _DESCRIBED_BYTES_MAX + 6 * len(answer.content_type or "")
    return room >= 0


def _send_piece(outputs: Sequence[object], ids: dict[int, str], message: str, code: int, context: Any = None) -> None:
    """Stand in for TorchServe's `send_intermediate_predict_response`, which handlers call with a piece of an answer."""
    send: Send | None = getattr(context, "marway_send", None)
    if send is None:
        _send_plain_piece(outputs, ids, message, code, context)
        return
    if code != 200:
        raise PredictionException(message, code)
    send(answer_of(context, 0, outputs[0], nonfinite=context.marway_nonfinite))


def _not_streaming(_: Answer) -> None:
    raise RuntimeError(
        "the handler sends its answer in pieces, but the version is not declared streaming: publish it with "
        '{"serving": {"streaming": true}} in its record'
    )


def _packed(batch: list[dict[str, Any]]) -> list[Row] | None:
    """Return the rows of an envelope, which `field_reader` has unpacked as it came; None for TorchServe's own rows."""
    if len(batch) == 1:
        for parameter in batch[0]["parameters"]:
            if parameter["name"] == KEY:
                rows: list[Row] = parameter["value"]
                return rows
    return None


def _ids_of(batch: list[dict[str, Any]]) -> dict[int, str]:
    """Return the callers' ids of TorchServe's own rows: their header, where they came over REST with one."""
    found = {}
    for index, row in enumerate(batch):
        for header in row.get("headers") or ():
            if header["name"].decode(errors="replace").lower() == REQUEST_ID:
                given = correlation_id(header["value"].decode(errors="replace"))
                found[index] = given or row["requestId"].decode()
    return found
