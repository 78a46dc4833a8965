"""Predictions by workers that run Marway's bootstrap: rows in an envelope there, answers in an envelope back.

Small envelopes go over gRPC. Large ones go over REST, whose client sends the values from where they are, and which
TorchServe receives with fewer copies; the worker finds the same envelope in either
(`marway_runtime.worker.field_reader`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import grpc
import httpx

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidRequest, MarwayError, ModelError, RuntimeDown
from marway.wire import envelope
from marway.wire.envelope import Answer, Bytes, Row
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.torchserve.classify import classify, classify_rest
from marway_sidecar.backends.torchserve.connection import Connection, NotHttp
from marway_sidecar.backends.torchserve.messages import encode_request, prediction_of

__all__ = ["EnvelopedCalls", "post", "time_left", "was_cancelled", "went_down"]

_REST_FROM_BYTES: Final = 1024 * 1024
"""Size of an envelope from which REST is the cheaper way; below it a call of httpx costs more than it saves."""
_JOINED_BYTES: Final = 64 * 1024
"""Values up to here are copied to stand beside what comes before them."""


class EnvelopedCalls:
    """Predictions with envelopes.

    Args:
        connection: The way to TorchServe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Return the answers to ``rows``, in their order; raises as `ModelServer.predict` does."""
        timeout_s = time_left(model, deadline)
        pieces = envelope.row_pieces(rows)
        if sum(map(len, pieces)) >= _REST_FROM_BYTES:
            answers = _answers(model, await self._over_rest(model, pieces, timeout_s))
        else:
            answers = _answers(model, await self._over_grpc(model, pieces, timeout_s))
        if len(answers) != len(rows):
            raise MarwayError(f"{model.name} {model.version} gave {len(answers)} answers to {len(rows)} rows")
        return answers

    async def _over_grpc(self, model: ServedModel, pieces: Sequence[Bytes], timeout_s: float) -> bytes:
        ask = self._connection.predictions
        try:
            said = await self._connection.rpc("inference", ask, _message(model, pieces), timeout_s=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            if was_cancelled():
                raise
            raise went_down(model) from exc
        return prediction_of(said)

    async def _over_rest(self, model: ServedModel, pieces: Sequence[Bytes], timeout_s: float) -> bytes:
        path = f"/predictions/{model.server_name}/{model.version}"
        headers = {"content-type": envelope.ROWS_CONTENT_TYPE, "content-length": str(sum(map(len, pieces)))}
        content = _Pieces(pieces)
        try:
            said = await post(self._connection, model, path, timeout_s, headers=headers, content=content)
        finally:
            content.drop()
        if said.status_code == httpx.codes.OK:
            return said.content
        error = classify_rest(said.status_code, said.content, model)
        raise error or MarwayError(f"TorchServe answered with status {said.status_code}")

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to ``row``; raises as `ModelServer.predict_stream` does."""
        timeout_s = time_left(model, deadline)
        request = _message(model, envelope.row_pieces([replace(row, stream=True)]))
        ask = self._connection.stream_predictions
        try:
            async with aclosing(self._connection.stream(ask, request, timeout_s=timeout_s)) as messages:
                async for message in messages:
                    for answer in _answers(model, prediction_of(message)):
                        yield answer
                        if answer.kind == "error":
                            return
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            if was_cancelled():
                raise
            raise went_down(model) from exc


async def post(
    connection: Connection, model: ServedModel, path: str, timeout_s: float, **options: Any
) -> httpx.Response:
    """Return the answer to an inference call over REST, whatever its status.

    Raises:
        RuntimeDown: TorchServe does not answer.
        DeadlineExceeded: It did not answer in time.
        InvalidRequest, ModelError: The request, or what the handler set, cannot be carried by HTTP.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await connection.rest("inference", "POST", path, timeout=None, **options)
    except NotHttp as exc:
        kind = InvalidRequest if exc.asked else ModelError
        raise kind(exc.message, model=model.name, version=model.version) from exc
    except (TimeoutError, httpx.TimeoutException) as exc:
        raise DeadlineExceeded(
            f"{model.name} {model.version} did not answer within the deadline", model=model.name, version=model.version
        ) from exc


def time_left(model: ServedModel, deadline: Deadline) -> float:
    """Return the seconds left.

    Raises:
        DeadlineExceeded: None are.
    """
    remaining = deadline.remaining()
    if remaining <= 0:
        raise DeadlineExceeded("the deadline passed before the model was asked", model=model.name)
    return remaining


def was_cancelled() -> bool:
    """Return whether the running task was cancelled, rather than a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def went_down(model: ServedModel) -> RuntimeDown:
    """Return what a cancelled call means that nobody cancelled: its channel was closed, for its TorchServe is gone."""
    return RuntimeDown("TorchServe went down during the call", model=model.name, version=model.version)


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


def _message(model: ServedModel, pieces: Sequence[Bytes]) -> bytes:
    return encode_request(model.server_name, model.version, envelope.KEY, pieces)


def _answers(model: ServedModel, prediction: bytes) -> list[Answer]:
    try:
        return envelope.decode_answers(prediction)
    except ValueError as exc:
        # An archive with its own Python (`runtime`, torchrun) runs without our bootstrap.
        raise ModelError(
            f"{model.name} {model.version} answered without Marway's worker bootstrap: it has a runtime of its own",
            model=model.name,
            version=model.version,
        ) from exc
