"""`ModelStreamInfer`: many requests of one caller over one call, each answered as it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, Final

from marway.errors import InvalidRequest, MarwayError, ModelError, clip
from marway_gateway.gateway import Gateway
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.surfaces.grpc.call import DETAILS_MAX, GrpcCall
from marway_gateway.surfaces.open_inference.messages import infer_pieces
from marway_http.message_fields import encoded, text_fields
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.v2_to_rest import parameters_of

__all__ = ["InferStream"]

_ID: Final = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["id"].number
_RESPONSE: Final = pb.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number
_FINAL: Final = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()
"""What Triton adds to the last response to a request, by which its clients know that there is no more."""
_PREDICTION: Final = "marway_prediction_id"
_TRAFFIC: Final = "marway_traffic"
_FALLBACK: Final = "marway_fallback"
_AT_ONCE: Final = 64
"""Requests of one call that are worked on at once; further ones are not read until one of these is answered."""


class InferStream:
    """Answers the requests of one call.

    They are worked on at once, and each response goes out when it is there: its `id` says which request it is for.
    Those of one sequence (`sequence_id`) wait for one another, for a server relies on their order. One that fails is
    answered with `error_message`, and the others go on.

    Args:
        gateway: Its parts.
        opened: Opens a predict call, within which an error is raised.
        write: Sends a `ModelStreamInferResponse`.
    """

    def __init__(
        self,
        gateway: Gateway,
        opened: Callable[[], AbstractAsyncContextManager[GrpcCall]],
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._gateway = gateway
        self._opened = opened
        self._write = write
        self._writing = asyncio.Lock()  # gRPC takes one message at a time
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._last: dict[Any, asyncio.Task[None]] = {}

    async def answer(self, requests: AsyncIterator[bytes]) -> None:
        """Answer all requests.

        Raises:
            InvalidRequest: One is no message; those before it were answered.
        """
        failure: InvalidRequest | None = None
        async with asyncio.TaskGroup() as tasks:
            async for message in requests:
                try:
                    (request_id,) = text_fields(message, _ID)
                    sequence = parameters_of(message).get("sequence_id") or None
                except InvalidRequest as exc:
                    failure = exc
                    break
                await self._room.acquire()
                task = tasks.create_task(self._answer(message, request_id, self._last.get(sequence)))
                task.add_done_callback(partial(self._ended, sequence))
                if sequence is not None:
                    self._last[sequence] = task
                del message
        if failure is not None:
            raise failure

    def _ended(self, sequence: Any, task: asyncio.Task[None]) -> None:
        self._room.release()
        if self._last.get(sequence) is task:
            del self._last[sequence]

    async def _answer(self, message: bytes, request_id: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        info: RequestInfo | None = None
        try:
            async with self._opened() as call:
                info = call.info
                info.request_bytes = len(message)
                async with aclosing(infer_pieces(self._gateway, call, message, final=_FINAL)) as responses:
                    async for response in responses:
                        named = _named(info)
                        if isinstance(response, ModelError):
                            await self._send(_failed(response, request_id, more=named))
                            continue
                        call.info.response_bytes += len(response)
                        await self._send(b"".join([encoded(_RESPONSE, len(response) + len(named)), response, named]))
        except MarwayError as exc:
            await self._send(_failed(exc, request_id, more=_FINAL + _named(info)))

    async def _send(self, response: bytes) -> None:
        async with self._writing:
            await self._write(response)


def _failed(error: MarwayError, request_id: str, *, more: bytes) -> bytes:
    response = pb.ModelInferResponse(id=request_id)
    response.MergeFromString(more)
    failed = pb.ModelStreamInferResponse(error_message=clip(error.message, DETAILS_MAX), infer_response=response)
    return failed.SerializeToString()


def _named(info: RequestInfo | None) -> bytes:
    """Return what says within a response which prediction it is, and whose: trailing metadata are the whole call's."""
    if info is None:
        return b""
    parameters = {_PREDICTION: pb.InferParameter(string_param=info.prediction_id or "")}
    if info.assignment is not None:
        parameters[_TRAFFIC] = pb.InferParameter(string_param=info.role)
    if info.fallback is not None:
        parameters[_FALLBACK] = pb.InferParameter(string_param=info.fallback)
    return pb.ModelInferResponse(parameters=parameters).SerializeToString()
