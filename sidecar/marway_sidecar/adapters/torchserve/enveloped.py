"""Predictions by workers that run Marway's bootstrap: rows in an envelope there, answers in an envelope back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import grpc

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, ModelError, RuntimeDown
from marway.wire import envelope
from marway.wire.envelope import Answer, Row
from marway_sidecar.adapters.base import ServedModel
from marway_sidecar.adapters.torchserve.classify import classify
from marway_sidecar.adapters.torchserve.connection import Connection
from marway_sidecar.adapters.torchserve.messages import encode_request, prediction_of

__all__ = ["EnvelopedCalls", "time_left", "was_cancelled", "went_down"]


class EnvelopedCalls:
    """Predictions through gRPC with envelopes.

    Args:
        connection: The way to TorchServe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Return the answers to ``rows``, in their order; raises as `ModelServer.predict` does."""
        timeout_s = time_left(model, deadline)
        ask = self._connection.predictions
        try:
            said = await self._connection.rpc("inference", ask, _request(model, rows), timeout_s=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            if was_cancelled():
                raise
            raise went_down(model) from exc
        answers = _answers(model, prediction_of(said))
        if len(answers) != len(rows):
            raise MarwayError(f"{model.name} {model.version} gave {len(answers)} answers to {len(rows)} rows")
        return answers

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to ``row``; raises as `ModelServer.predict_stream` does."""
        timeout_s = time_left(model, deadline)
        request = _request(model, [replace(row, stream=True)])
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


def _request(model: ServedModel, rows: Sequence[Row]) -> bytes:
    return encode_request(model.server_name, model.version, envelope.KEY, envelope.row_pieces(rows))


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
