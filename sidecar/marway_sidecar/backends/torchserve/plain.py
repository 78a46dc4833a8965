"""Predictions by TorchServe's own workers: each row a request of its own, over gRPC or REST.

gRPC carries bytes by name and brings bytes back: no content type, so no parsed JSON and no text; no headers, no status.
What needs one of those goes over REST, if the version leaves the choice to us (`ServingSettings.protocol`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import grpc

from marway.deadline import Deadline
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.torchserve.classify import classify, classify_rest
from marway_sidecar.backends.torchserve.connection import Connection
from marway_sidecar.backends.torchserve.enveloped import post, time_left, was_cancelled, went_down
from marway_sidecar.backends.torchserve.proto import inference_pb2
from marway_sidecar.backends.torchserve.rest_rows import answer_of, needs_rest, rest_request

__all__ = ["PlainCalls"]


class PlainCalls:
    """Predictions without envelopes. TorchServe makes batches of concurrent requests itself.

    Args:
        connection: The way to TorchServe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Return the answers to ``rows``, in their order; raises as `ModelServer.predict` does."""
        if len(rows) == 1:
            return [await self._one(model, rows[0], deadline)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(model, row, deadline), name=f"predict {model.name}") for row in rows
                ]
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        return [task.result() for task in tasks]

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to ``row``; raises as `ModelServer.predict_stream` does."""
        stub = self._connection.inference
        timeout_s = time_left(model, deadline)
        try:
            async with aclosing(
                self._connection.stream(stub.StreamPredictions, _request(model, row), timeout_s=timeout_s)
            ) as messages:
                async for message in messages:
                    yield answer_of(200, message.prediction, {}, piece=True)
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            if was_cancelled():
                raise
            raise went_down(model) from exc

    async def _one(self, model: ServedModel, row: Row, deadline: Deadline) -> Answer:
        timeout_s = time_left(model, deadline)
        if model.protocol == "rest" or (model.protocol == "auto" and needs_rest(row)) or row.explains:
            return await self._rest(model, row, timeout_s)
        stub = self._connection.inference
        try:
            said = await self._connection.rpc("inference", stub.Predictions, _request(model, row), timeout_s=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            if was_cancelled():
                raise
            raise went_down(model) from exc
        return answer_of(200, said.prediction, {})

    async def _rest(self, model: ServedModel, row: Row, timeout_s: float) -> Answer:
        route = "explanations" if row.explains else "predictions"
        path = f"/{route}/{model.server_name}/{model.version}"
        said = await post(self._connection, model, path, timeout_s, **rest_request(row))
        error = classify_rest(said.status_code, said.content, model)
        if error is not None:
            raise error
        return answer_of(said.status_code, said.content, said.headers)


def _request(model: ServedModel, row: Row) -> inference_pb2.PredictionsRequest:
    return inference_pb2.PredictionsRequest(
        model_name=model.server_name,
        model_version=model.version,
        input={part.name: bytes(part.value) for part in row.parts},
    )
