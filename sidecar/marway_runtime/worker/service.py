"""Marway's service in place of `ts.service.Service`: unpacks envelopes into rows, and answers row by row.

Handlers are called by `marway.worker`, with the model's real name where TorchServe knows the version by its id. Their
answers go back in pieces where the version is declared streaming. Calls without an envelope are TorchServe's own
matter. How many calls are under way at once is the archive's matter (`marway.archives.rules`).
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from ts import async_service, model_loader
from ts.context import RequestProcessor
from ts.handler_utils import utils as handler_utils
from ts.protocol import otf_message_handler
from ts.protocol.otf_message_handler import create_predict_response
from ts.service import Service
from ts.utils.util import PredictionException

from marway.answers.encoding import Nonfinite
from marway.archives.rules import calling_of
from marway.wire.answer_pieces import piece_of
from marway.wire.envelope import Answer, Row, answer_size
from marway.wire.measurements import MEASUREMENTS_MAX, Measurement
from marway.worker.calls import OUT_OF_RESOURCES, Outcome, answer_of, call_async_handler, call_handler, declare_metrics
from marway.worker.continuous import ContinuousBatch, Step
from marway.worker.requests import request_of
from marway.worker.sequences import InSequences, keeps_sequences
from marway.worker.steps import timed_steps
from marway_runtime.worker import custom_metrics, field_reader, log_records
from marway_runtime.worker.answer_message import Call, message_of, pieces_message
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
K = TypeVar("K", bound=Hashable)
_predict_plain_async = async_service.predict


def install() -> None:
    """Put `MarwayService`, its reading and quiet logging in place; call it before TorchServe's worker script runs."""
    model_loader.Service = MarwayService
    # Handlers import it from either; both must find the one that knows envelopes.
    handler_utils.send_intermediate_predict_response = _send_piece
    otf_message_handler.send_intermediate_predict_response = _send_piece
    # TorchServe logs a line for every request it receives, with the caller looked up: a tenth of a small model's time.
    otf_message_handler.logging = _QuietLogging()
    async_service.predict = _predict_async
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
        self.max_response_bytes = int(limit) if limit else None
        super().__init__(real_name, model_dir, manifest, *args, **kwargs)
        declare_metrics(self.context.metrics, model_dir)
        self.context.marway_send = None  # what `_send_piece` calls while an envelope is being answered
        if keeps_sequences(self.context):
            self.answered = InSequences(self.answered)  # type: ignore[method-assign]
        continuous = calling_of(self.context.model_yaml_config or {}).way == "continuous"
        self._under_way: ContinuousBatch[str] | None = self.continuous_batch() if continuous else None

    def predict(self, batch: list[dict[str, Any]]) -> bytearray:
        """Answer one call of the front end: envelopes, or TorchServe's own rows."""
        calls = [Call.of(each) for each in batch]
        if self._under_way is not None:
            return self._continue(self._under_way, calls)
        if not all(call.rows for call in calls):
            return self._plain(batch)
        limit = self.max_response_bytes
        answered = []
        for call in calls:

            def send(piece: Answer, call: Call = call) -> None:
                self.cl_socket.sendall(message_of([(call, within([piece], limit), False)]))

            answered.append((call, within(self.answered(call.rows, send), limit), True))
        return message_of(answered)

    def answered(self, rows: Sequence[Row], send: Send) -> list[Answer]:
        """Return the answers to the rows of one call, and with the first what was measured; ``send`` takes pieces."""
        context = self.context
        requests = [request_of(row) for row in rows]
        log_records.answering({index: row.request_id for index, row in enumerate(rows)})
        self._prepare(context, send if rows[0].stream else _not_streaming, requests[0].nonfinite)
        try:
            with timed_steps(self._entry_point, rows) as steps:
                outcome = call_handler(self._entry_point, context, requests, RequestProcessor)
        finally:
            context.marway_send = None
        log_records.answering(None)
        return _answers_of(outcome, steps)

    async def answered_async(self, rows: Sequence[Row], send: Send) -> list[Answer]:
        """Return the answers to the rows of one of many calls that are under way; as `answered` otherwise.

        The context is a copy, as TorchServe's is.

        Raises:
            asyncio.CancelledError: The call was given up.
        """
        metrics = copy.copy(self.context.metrics)  # it knows the requests of one call, and values lie elsewhere
        try:
            context = copy.deepcopy(self.context, {id(self.context.metrics): metrics})
        except Exception as exc:
            logger.error("The handler's context cannot be copied for a call.", exc_info=True)
            message = f"the handler keeps something in its context that cannot be copied: {type(exc).__name__}: {exc}"
            return [Answer(500, message.encode(errors="replace"), "error")] * len(rows)
        requests = [request_of(row) for row in rows]
        log_records.answering_here({index: row.request_id for index, row in enumerate(rows)})
        self._prepare(context, send if rows[0].stream else _not_streaming, requests[0].nonfinite)
        return _answers_of(await call_async_handler(self._entry_point, context, requests, RequestProcessor))

    def continuous_batch(self) -> ContinuousBatch[Any]:
        """Return rows that will be under way together: none yet."""
        return ContinuousBatch(self._entry_point, self.context, RequestProcessor)

    def step(self, batch: ContinuousBatch[K]) -> list[Step[K]]:
        """Call the handler once with all rows under way, and return a piece for each; the first has the measurements.

        ``batch`` has a row at least.
        """
        log_records.answering(batch.request_ids)
        self._prepare(self.context, _in_pieces_anyway, "error")
        try:
            steps, exception = batch.step()
        finally:
            self.context.marway_send = None
        log_records.answering(None)
        answers = _answers_of(Outcome([step.answer for step in steps], exception=exception))
        return [step._replace(answer=answer) for step, answer in zip(steps, answers, strict=True)]

    def _prepare(self, context: Any, send: Send, nonfinite: Nonfinite) -> None:
        context.cl_socket = self.cl_socket
        context.marway_send = send
        context.marway_nonfinite = nonfinite  # of pieces, whose row comes alone

    def _continue(self, under_way: ContinuousBatch[str], calls: Sequence[Call]) -> bytearray:
        """Make one call with the rows of this message. The front end repeats those under way, without their input; it
        never ends an answer that is whole with its first piece: such a one gets an empty piece when it comes again.
        """
        by_id = {call.request_id: call for call in calls}
        for request_id in under_way.keys:
            if request_id not in by_id:
                under_way.remove(request_id)  # its caller has gone
        for call in calls:
            if call.rows:
                under_way.add(call.request_id, request_of(call.rows[0]))
        limit = self.max_response_bytes
        pieces = []
        for step in self.step(under_way) if len(under_way) else ():
            call = by_id.pop(step.key)
            piece = piece_of(within([step.answer], limit), last=step.last)
            pieces.append((call, piece, step.last and not call.rows))
        return pieces_message([*pieces, *((call, b"", True) for call in by_id.values())])

    def _plain(self, batch: list[dict[str, Any]]) -> bytearray:
        log_records.answering(lambda: log_records.ids_of(batch))
        message = bytearray(super().predict(batch))
        log_records.answering(None)
        if self.max_response_bytes is not None and len(message) > self.max_response_bytes:
            ids = {index: row["requestId"].decode() for index, row in enumerate(batch)}
            return bytearray(create_predict_response(None, ids, "The answer is too large", OUT_OF_RESOURCES))
        return message


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


def _answers_of(outcome: Outcome, steps: Sequence[Measurement] = ()) -> list[Answer]:
    """Return the answers that a call gave, and with the first what was measured, ``steps`` among it.

    Raises:
        SystemExit: The handler raised it.
    """
    if isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    measured = [*custom_metrics.take(), *steps][:MEASUREMENTS_MAX]
    if measured:
        outcome.answers[0] = replace(outcome.answers[0], measured=measured)
    return outcome.answers


async def _predict_async(service: MarwayService, batch: list[dict[str, Any]]) -> Any:
    """Stand in for `ts.async_service.predict`: answer one of many calls of the front end that are under way.

    Pieces and answers of all calls are sent from here, the loop's thread, in their order. TorchServe sends answers from
    another, which could cut a piece in two; what is returned is left for that one to send.
    """
    calls = [Call.of(each) for each in batch]
    if not all(call.rows for call in calls):
        return await _predict_plain_async(service, batch)
    await asyncio.gather(*(_answer_async(service, call) for call in calls))
    return b""


async def _answer_async(service: MarwayService, call: Call) -> None:
    def send(piece: Answer) -> None:
        service.cl_socket.sendall(message_of([(call, within([piece], service.max_response_bytes), False)]))

    try:
        answers = await service.answered_async(call.rows, send)
    except SystemExit as exc:
        # Raised on, it would end the loop and leave the process waiting for TorchServe's threads.
        os._exit(exc.code if isinstance(exc.code, int) else 1)
    service.cl_socket.sendall(message_of([(call, within(answers, service.max_response_bytes), True)]))


def _in_pieces_anyway(_: Answer) -> None:
    raise RuntimeError("with continuousBatching a handler returns a piece with each call, and sends none beside it")


def _not_streaming(_: Answer) -> None:
    raise RuntimeError(
        "the handler sends its answer in pieces, but the version is not declared streaming: publish it with "
        '{"serving": {"streaming": true}} in its record'
    )
