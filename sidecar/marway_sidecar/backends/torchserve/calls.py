"""Inference calls to one TorchServe. To workers that run Marway's bootstrap: rows in an envelope there, answers in an
envelope back.

Small envelopes go over gRPC. Large ones go over REST, whose client sends the values from where they are, and which
TorchServe receives with fewer copies; the worker finds the same envelope in either
(`marway_runtime.worker.field_reader`).

The two messages of a gRPC call are written and read without the objects of their generated classes, through which a
body of 50 MiB would be copied three times; so it is copied once. The format is protobuf's
(https://protobuf.dev/programming-guides/encoding): each field a tag, that is its number and kind, its length and its
bytes; a map's entry is a message of two fields.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NoReturn

import grpc
import httpx

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidRequest, MarwayError, ModelError, RuntimeDown
from marway.wire import envelope
from marway.wire.answer_pieces import PiecesReader
from marway.wire.envelope import Answer, Bytes, Row
from marway_sidecar.backends.base import ServedModel, WorkerDied
from marway_sidecar.backends.calls import whole_answer
from marway_sidecar.backends.torchserve.classify import classify, classify_rest, died_or_late
from marway_sidecar.backends.torchserve.connection import Connection, NotHttp, closed
from marway_sidecar.backends.torchserve.proto import inference_pb2
from marway_sidecar.errors import about

__all__ = ["Calls", "EnvelopedCalls", "encode_request", "prediction_of"]

_REST_FROM_BYTES: Final = 1024 * 1024
"""Size of an envelope from which REST is the cheaper way; below it a call of httpx costs more than it saves."""
_JOINED_BYTES: Final = 64 * 1024
"""Values up to here are copied to stand beside what comes before them."""
_BYTES: Final = 2  # the wire type of what has a length: texts, bytes, messages
_MODEL_NAME, _MODEL_VERSION, _INPUT = (number << 3 | _BYTES for number in (1, 2, 3))
_KEY, _VALUE = (number << 3 | _BYTES for number in (1, 2))
_PREDICTION: Final = 1 << 3 | _BYTES


class Calls(ABC):
    """Predictions, and what those with and without envelopes have in common. Each method raises as
    `ModelServer.predict` does.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @abstractmethod
    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Return the answers to ``rows``, in their order."""

    @abstractmethod
    def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to ``row``."""

    async def over_grpc(self, model: ServedModel, request: bytes, timeout_s: float) -> bytes:
        """Return the prediction with which TorchServe answers an encoded `PredictionsRequest`."""
        connection = self._connection
        try:
            if connection.tokens is None:
                return prediction_of(await connection.predictions(request, timeout=timeout_s))
            return prediction_of(
                await connection.rpc("inference", connection.predictions, request, timeout_s=timeout_s)
            )
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as exc:
            _fail(exc, model)

    async def stream_over_grpc(
        self, model: ServedModel, request: bytes, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the predictions with which TorchServe answers, one for each piece that the handler sends."""
        connection = self._connection
        try:
            async with aclosing(
                connection.stream(connection.stream_predictions, request, timeout_s=timeout_s)
            ) as responses:
                async for response in responses:
                    yield prediction_of(response)
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as exc:
            _fail(exc, model)

    async def over_rest(
        self, model: ServedModel, timeout_s: float, *, route: str = "predictions", **options: Any
    ) -> httpx.Response:
        """Return the response to a `POST`, whatever its status."""
        path = f"/{route}/{model.server_name}/{model.version}"
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connection.rest("inference", "POST", path, timeout=None, **options)
        except NotHttp as exc:
            raise about(model, (InvalidRequest if exc.in_request else ModelError)(exc.message)) from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            message = f"{model.name} {model.version} did not answer within the deadline"
            raise about(model, DeadlineExceeded(message)) from exc


class EnvelopedCalls(Calls):
    """Predictions with envelopes."""

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        if model.streaming:
            return [await whole_answer(self.predict_stream(model, row, deadline)) for row in rows]
        timeout_s = deadline.time_left_s(model=model.name)
        pieces = envelope.row_pieces(rows)
        size = sum(map(len, pieces))
        began = time.monotonic()
        try:
            if size >= _REST_FROM_BYTES:
                prediction = await self._as_body(model, pieces, size, timeout_s)
            else:
                request = encode_request(model.server_name, model.version, envelope.KEY, pieces)
                prediction = await self.over_grpc(model, request, timeout_s)
        except WorkerDied as exc:
            raise died_or_late(exc, model, time.monotonic() - began) from exc
        answers = _answers(model, prediction)
        if len(answers) != len(rows):
            raise MarwayError(f"{model.name} {model.version} gave {len(answers)} answers to {len(rows)} rows")
        return answers

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        if model.in_pieces:
            async with aclosing(self._continuous(model, row, deadline)) as answers:
                async for answer in answers:
                    yield answer
            return
        timeout_s = deadline.time_left_s(model=model.name)
        pieces = envelope.row_pieces([replace(row, stream=True)])
        request = encode_request(model.server_name, model.version, envelope.KEY, pieces)
        async with aclosing(self.stream_over_grpc(model, request, timeout_s)) as predictions:
            async for prediction in predictions:
                for answer in _answers(model, prediction):
                    yield answer
                    if answer.kind == "error":
                        return

    async def _continuous(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of a `continuousBatching` archive's answer.

        Over REST: over gRPC, TorchServe 0.12 takes every such caller for gone after the first piece.
        """
        path = f"/predictions/{model.server_name}/{model.version}"
        headers = {"content-type": envelope.ROWS_CONTENT_TYPE}
        content = b"".join(envelope.row_pieces([replace(row, stream=True)]))
        reader = PiecesReader()
        timeout_s = deadline.time_left_s(model=model.name)
        try:
            async with aclosing(
                self._connection.rest_stream(path, timeout_s=timeout_s, headers=headers, content=content)
            ) as responses:
                async for response in responses:
                    if response.status_code != httpx.codes.OK:
                        error = classify_rest(response.status_code, await response.aread(), model)
                        raise error or MarwayError(f"TorchServe answered with status {response.status_code}")
                    async for data in response.aiter_raw():
                        for answer in reader.feed(data):
                            yield answer
                        deadline.time_left_s(model=model.name)
        except httpx.TimeoutException as exc:
            message = f"{model.name} {model.version} did not answer within the deadline"
            raise about(model, DeadlineExceeded(message)) from exc
        except ValueError as exc:
            raise about(model, ModelError(f"{model.name} {model.version} answered with what is no answer")) from exc
        if not reader.whole:
            raise about(model, WorkerDied(f"the worker of {model.name} {model.version} died during the call"))

    async def _as_body(self, model: ServedModel, pieces: Sequence[Bytes], size: int, timeout_s: float) -> bytes:
        headers = {"content-type": envelope.ROWS_CONTENT_TYPE, "content-length": str(size)}
        content = _Pieces(pieces)
        try:
            response = await self.over_rest(model, timeout_s, headers=headers, content=content)
        finally:
            content.drop()
        if response.status_code == httpx.codes.OK:
            return response.content
        error = classify_rest(response.status_code, response.content, model)
        raise error or MarwayError(f"TorchServe answered with status {response.status_code}")


class _Pieces:
    """The pieces of an envelope as httpx takes a body, which may be sent again."""

    def __init__(self, pieces: Sequence[Bytes]) -> None:
        self._chunks: list[Bytes] = []
        small: list[Bytes] = []
        for piece in pieces:
            if len(piece) <= _JOINED_BYTES:
                small.append(piece)
                continue
            self._chunks += (b"".join(small), piece)
            small = []
        self._chunks.append(b"".join(small))

    def drop(self) -> None:
        """Let go of them. httpx leaves its request in a cycle of objects, which would hold them until it is found."""
        self._chunks = []

    async def __aiter__(self) -> AsyncIterator[Bytes]:
        for at in range(len(self._chunks)):
            yield self._chunks[at]


def encode_request(model_name: str, model_version: str, key: str, value: Sequence[Bytes]) -> bytes:
    """Return a `PredictionsRequest` with one input: its name is ``key``, its bytes are ``value``, in pieces."""
    size = sum(map(len, value))
    named, keyed = _fixed(model_name, model_version, key)
    tail = bytes((_VALUE,)) + _varint(size)
    entry = bytes((_INPUT,)) + _varint(len(keyed) + len(tail) + size)
    return b"".join([named, entry, keyed, tail, *value])


def prediction_of(response: bytes) -> bytes:
    """Return what a `PredictionResponse` holds for a prediction.

    Raises:
        google.protobuf.message.DecodeError: It is no such message.
    """
    if response and response[0] == _PREDICTION:
        size = shift = 0
        for at in range(1, min(len(response), 6)):
            byte = response[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if size == len(response) - at - 1:
                    return response[at + 1 :]
                break
    return inference_pb2.PredictionResponse.FromString(response).prediction  # with more in it, or empty


@lru_cache(maxsize=1024)
def _fixed(model_name: str, model_version: str, key: str) -> tuple[bytes, bytes]:
    return _text(_MODEL_NAME, model_name) + _text(_MODEL_VERSION, model_version), _text(_KEY, key)


def _text(tag: int, text: str) -> bytes:
    data = text.encode()
    return bytes((tag,)) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; all but the last have the eighth bit set."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _answers(model: ServedModel, prediction: bytes) -> list[Answer]:
    try:
        return envelope.decode_answers(prediction)
    except ValueError as exc:
        # An archive with its own Python (`runtime`, torchrun) runs without our bootstrap.
        message = "answered without Marway's worker bootstrap: it has a runtime of its own"
        raise about(model, ModelError(f"{model.name} {model.version} {message}")) from exc


def _fail(exc: BaseException, model: ServedModel) -> NoReturn:
    """Raise the error of ours that a failed call over gRPC stands for."""
    if isinstance(exc, grpc.aio.AioRpcError):
        raise classify(exc, model) from exc
    if isinstance(exc, grpc.aio.UsageError):
        raise closed() from exc
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise exc  # it was the task that was cancelled, not the call that it waited for
    raise about(model, RuntimeDown("TorchServe went down during the call")) from exc  # which closed its channel
