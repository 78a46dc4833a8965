"""Marway's service in place of `ts.service.Service`: unpacks an envelope into rows, and answers row by row.

Handlers see what TorchServe's REST front end would have given them (`inputs`), and the model's real name where
TorchServe knows the version by its id. Their answers go back with all that they set (`outputs`), in pieces where the
version is declared streaming. Calls without an envelope are left to TorchServe's own code.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ts import model_loader
from ts.context import RequestProcessor
from ts.handler_utils import utils as handler_utils
from ts.protocol import otf_message_handler
from ts.protocol.otf_message_handler import create_predict_response
from ts.service import Service
from ts.utils.util import PredictionException

from marway.answers.encoding import Nonfinite
from marway.wire.envelope import KEY, Answer, Row
from marway.wire.headers import JSON_NONFINITE, REQUEST_ID, UNEXPLAINED
from marway.wire.request import correlation_id
from marway_runtime.worker import log_records, measuring, reading
from marway_runtime.worker.inputs import UnusableInput, headers_of, input_of, unexplained
from marway_runtime.worker.outputs import MAX_RESPONSE_BYTES_ENV, Frame, answer_of, failed, within

__all__ = ["MarwayService", "install"]

logger = logging.getLogger(__name__)

_OUT_OF_RESOURCES = 507
_send_plain_piece = handler_utils.send_intermediate_predict_response
Send = Callable[[Answer], None]


def install() -> None:
    """Put `MarwayService`, its reading and quiet logging in place; call it before TorchServe's worker script runs."""
    model_loader.Service = MarwayService
    # Handlers import it from either; both must find the one that knows envelopes.
    handler_utils.send_intermediate_predict_response = _send_piece
    otf_message_handler.send_intermediate_predict_response = _send_piece
    # TorchServe logs a line for every request it receives, with the caller looked up: a tenth of a small model's time.
    otf_message_handler.logging = _QuietLogging()
    measuring.install()
    reading.install()


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
        measuring.declare(self.context.metrics, model_dir)
        self.context.marway_send = None  # what `_send_piece` calls while an envelope is being answered

    def predict(self, batch: list[dict[str, Any]]) -> bytearray:
        """Answer one call of the front end, which holds one envelope or TorchServe's own rows."""
        rows = _packed(batch)
        if rows is None:
            return self._plain(batch)
        frame = Frame(batch[0]["requestId"].decode(), stream=rows[0].stream)
        limit = self._max_response_bytes

        def send(piece: Answer) -> None:
            self.cl_socket.sendall(frame.message(within([piece], limit), more=True))

        answers = self._answer(rows, send if rows[0].stream else _not_streaming)
        log_records.answering(None)
        measured = measuring.take()
        if measured:
            answers[0] = replace(answers[0], measured=measured)
        return frame.message(within(answers, limit))

    def _answer(self, rows: Sequence[Row], send: Send) -> list[Answer]:
        context = self.context
        context.request_ids = {index: row.request_id for index, row in enumerate(rows)}
        headers = [headers_of(row) for row in rows]
        log_records.answering(context.request_ids)
        context.request_processor = [RequestProcessor(each) for each in headers]
        context.metrics.request_ids = context.request_ids
        context.cl_socket = self.cl_socket
        context.marway_send = send
        context.marway_nonfinite = _nonfinite(rows[0])  # of pieces, whose row comes alone
        try:
            outputs = self._entry_point([input_of(row) for row in rows], context)
        except UnusableInput as exc:
            return failed(len(rows), 400, str(exc))
        except PredictionException as exc:
            logger.error("The handler refused the request.", exc_info=True)
            return failed(len(rows), _status(exc.error_code), str(exc.message))
        except MemoryError:
            logger.error("Out of memory.", exc_info=True)
            return failed(len(rows), _OUT_OF_RESOURCES, "the model ran out of memory")
        except Exception as exc:
            logger.error("The handler raised %s.", type(exc).__name__, exc_info=True)
            if isinstance(exc, AttributeError) and exc.name == "get_insights" and rows[0].explains:
                # What TorchServe's own base handler explains with, and leaves to those who derive from it.
                return failed(len(rows), 501, "the model has no explanations: its handler has no `get_insights`")
            if "CUDA" in str(exc):
                return failed(len(rows), _OUT_OF_RESOURCES, f"the model ran out of GPU memory: {exc}")
            return failed(len(rows), 500, f"{type(exc).__name__}: {exc}")
        except SystemExit:
            logger.error("The handler ended its process.", exc_info=True)
            raise
        finally:
            context.marway_send = None
        if not isinstance(outputs, list):
            said = f"the handler returned {type(outputs).__name__}, not a list with one answer a row"
            return failed(len(rows), 500, said)
        if len(outputs) != len(rows):
            return failed(len(rows), 500, f"the handler returned {len(outputs)} answers for {len(rows)} rows")
        answers = [
            answer_of(context, index, output, nonfinite=_nonfinite(row))
            for index, (row, output) in enumerate(zip(rows, outputs, strict=True))
        ]
        if unexplained(headers):
            return [replace(answer, headers={**answer.headers, UNEXPLAINED: "1"}) for answer in answers]
        return answers

    def _plain(self, batch: list[dict[str, Any]]) -> bytearray:
        log_records.answering(lambda: _ids_of(batch))
        message = bytearray(super().predict(batch))
        log_records.answering(None)
        if self._max_response_bytes is not None and len(message) > self._max_response_bytes:
            ids = {index: row["requestId"].decode() for index, row in enumerate(batch)}
            return bytearray(create_predict_response(None, ids, "The answer is too large", _OUT_OF_RESOURCES))
        return message


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
    """Return the rows of an envelope, which `reading` has unpacked as it came; None for TorchServe's own rows."""
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
                said = correlation_id(header["value"].decode(errors="replace"))
                found[index] = said or row["requestId"].decode()
    return found


def _nonfinite(row: Row) -> Nonfinite:
    said = row.headers.get(JSON_NONFINITE)
    return said if said in ("null", "allow") else "error"  # type: ignore[return-value]  # one of its words


def _status(code: object) -> int:
    return code if isinstance(code, int) and 400 <= code <= 599 else 500
