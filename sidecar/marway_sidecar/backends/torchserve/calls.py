"""Inference calls to one TorchServe, over gRPC and REST; whatever goes wrong becomes an error of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
import httpx

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidRequest, ModelError, RuntimeDown
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.torchserve.classify import classify
from marway_sidecar.backends.torchserve.connection import Connection, NotHttp
from marway_sidecar.backends.torchserve.messages import prediction_of

__all__ = ["Calls", "time_left"]


class Calls:
    """What predictions with and without envelopes have in common. Each method raises as `ModelServer.predict` does.

    Args:
        connection: The way to TorchServe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def over_grpc(self, model: ServedModel, request: bytes, timeout_s: float) -> bytes:
        """Return the prediction with which TorchServe answers an encoded `PredictionsRequest`."""
        connection = self._connection
        try:
            response = await connection.rpc("inference", connection.predictions, request, timeout_s=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            if _is_cancelled():
                raise
            raise _went_down(model) from exc
        return prediction_of(response)

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
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            if _is_cancelled():
                raise
            raise _went_down(model) from exc

    async def over_rest(
        self, model: ServedModel, timeout_s: float, *, route: str = "predictions", **options: Any
    ) -> httpx.Response:
        """Return the response to a `POST`, whatever its status."""
        path = f"/{route}/{model.server_name}/{model.version}"
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connection.rest("inference", "POST", path, timeout=None, **options)
        except NotHttp as exc:
            kind = InvalidRequest if exc.in_request else ModelError
            raise kind(exc.message, model=model.name, version=model.version) from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            message = f"{model.name} {model.version} did not answer within the deadline"
            raise DeadlineExceeded(message, model=model.name, version=model.version) from exc


def time_left(model: ServedModel, deadline: Deadline) -> float:
    """Return the seconds left.

    Raises:
        DeadlineExceeded: None are.
    """
    remaining = deadline.left_s()
    if remaining <= 0:
        raise DeadlineExceeded("the deadline passed before the model was asked", model=model.name)
    return remaining


def _is_cancelled() -> bool:
    """Return whether the running task was cancelled, rather than a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _went_down(model: ServedModel) -> RuntimeDown:
    """Return what a cancelled call means that nobody cancelled: its channel was closed, for its TorchServe is gone."""
    return RuntimeDown("TorchServe went down during the call", model=model.name, version=model.version)
