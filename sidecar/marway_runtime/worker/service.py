"""Marway's service in place of `ts.service.Service`: unpacks an envelope into rows, and answers row by row.

Handlers see what TorchServe's REST front end would have given them: JSON as objects, text as str, other bytes as
they came, each under its name, with request headers; and the model's real name where TorchServe knows the version by
its id. Calls without an envelope are left to TorchServe's own code.
"""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import torch
from ts import model_loader
from ts.context import RequestProcessor
from ts.protocol import otf_message_handler
from ts.protocol.otf_message_handler import create_predict_response
from ts.service import Service
from ts.utils.util import PredictionException

from marway.wire.envelope import KEY, Answer, Part, Row, decode_rows, encode_answers

__all__ = ["MarwayService", "install"]

logger = logging.getLogger(__name__)

_OUT_OF_RESOURCES = 507


def install() -> None:
    """Put `MarwayService` and quiet logging in place; call it before TorchServe's worker script runs."""
    model_loader.Service = MarwayService
    # TorchServe logs a line for every request it receives, with the caller looked up: a tenth of a small model's time.
    otf_message_handler.logging = _QuietLogging()


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
        super().__init__(real_name, model_dir, manifest, *args, **kwargs)

    def predict(self, batch: list[dict[str, Any]]) -> bytearray:
        """Answer one call of the front end, which holds one envelope or TorchServe's own rows."""
        packed = _packed(batch)
        if packed is None:
            return bytearray(super().predict(batch))
        rows = decode_rows(packed)
        answers = self._answer(rows)
        request_ids = {0: batch[0]["requestId"].decode()}
        return bytearray(create_predict_response([encode_answers(answers)], request_ids, "Prediction success", 200))

    def _answer(self, rows: list[Row]) -> list[Answer]:
        context = self.context
        context.request_ids = {index: row.request_id for index, row in enumerate(rows)}
        context.request_processor = [RequestProcessor(_headers(row)) for row in rows]
        context.metrics.request_ids = context.request_ids
        context.cl_socket = self.cl_socket
        inputs = [{part.name: _value(part) for part in row.parts} for row in rows]
        try:
            outputs = self._entry_point(inputs, context)
        except PredictionException as exc:
            logger.error("The handler refused the request.", exc_info=True)
            return _failed(rows, exc.error_code, str(exc.message))
        except MemoryError:
            logger.error("Out of memory.", exc_info=True)
            return _failed(rows, _OUT_OF_RESOURCES, "the model ran out of memory")
        except Exception as exc:
            logger.error("The handler raised.", exc_info=True)
            if "CUDA" in str(exc):
                return _failed(rows, _OUT_OF_RESOURCES, f"the model ran out of GPU memory: {exc}")
            return _failed(rows, 500, f"{type(exc).__name__}: {exc}")
        if not isinstance(outputs, list):
            return _failed(
                rows, 500, f"the handler returned {type(outputs).__name__}, not a list with one answer a row"
            )
        if len(outputs) != len(rows):
            return _failed(rows, 500, f"the handler returned {len(outputs)} answers for {len(rows)} rows")
        return [self._row_answer(index, output) for index, output in enumerate(outputs)]

    def _row_answer(self, index: int, output: object) -> Answer:
        status, _ = self.context.get_response_status(index)
        headers = {str(key): str(value) for key, value in self.context.get_response_headers(index).items()}
        try:
            body, kind = _encoded(output)
        except (TypeError, ValueError) as exc:
            logger.error("The handler's answer cannot be encoded.", exc_info=True)
            return Answer(500, f"the handler's answer cannot be encoded: {exc}".encode(), "error")
        content_type = headers.pop("content-type", None)
        return Answer(int(status or 200), body, kind, content_type, headers)


def _packed(batch: list[dict[str, Any]]) -> bytearray | None:
    if len(batch) == 1:
        for parameter in batch[0]["parameters"]:
            if parameter["name"] == KEY:
                value: bytearray = parameter["value"]
                return value
    return None


def _headers(row: Row) -> dict[str, Any]:
    # A part's content type stands under the part's name, as TorchServe puts it.
    headers: dict[str, Any] = {part.name: {"content-type": part.content_type or ""} for part in row.parts}
    headers.update(row.headers)
    return headers


def _value(part: Part) -> object:
    """Return what `ts.protocol.otf_message_handler` would have made of the part."""
    content_type = (part.content_type or "").partition(";")[0].strip()  # as the Java front end passes it on
    try:
        if content_type == "application/json":
            return json.loads(part.value.decode())
        if content_type.startswith("text"):
            return part.value.decode()
    except ValueError:  # includes UnicodeDecodeError: the handler gets the bytes, as TorchServe does it
        logger.warning("A %s body could not be decoded and goes to the handler as bytes.", content_type)
    return bytearray(part.value)


def _encoded(output: object) -> tuple[bytes, str]:
    """Return the handler's answer encoded as TorchServe encodes it, and what it was."""
    if isinstance(output, (bytes, bytearray)):
        return bytes(output), "bytes"
    if isinstance(output, str):
        return output.encode(), "text"
    if isinstance(output, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(output, buffer)
        return buffer.getvalue(), "tensor"
    return json.dumps(output, indent=2).encode(), "json"


def _failed(rows: list[Row], status: int, message: str) -> list[Answer]:
    return [Answer(status, message.encode(), "error") for _ in rows]
