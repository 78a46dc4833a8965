"""TorchServe's gRPC inference API, so that its clients change nothing but the host.

`org.pytorch.serve.grpc.inference.InferenceAPIsService`: where TorchServe takes a version, this takes a label too; where
it serves a model's default version, this serves the one at `PROD`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import grpc
import grpc.aio
from google.protobuf import empty_pb2

from marway.errors import DeadlineExceeded, InvalidRequest, MarwayError, clip
from marway.wire.envelope import RAW_BODY
from marway.wire.headers import SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START
from marway.wire.problems import problem_of
from marway_gateway.gateway import Gateway
from marway_gateway.predict.call import Answer
from marway_gateway.proto.torchserve import inference_pb2, inference_pb2_grpc
from marway_gateway.surfaces.grpc.call import DETAILS_MAX, GrpcCall, predict_rpc
from marway_gateway.surfaces.grpc.status import code_of
from marway_gateway.surfaces.torchserve.errors import torchserve_exception
from marway_gateway.transport.multipart import encode_fields

__all__ = ["SERVICE", "TorchServeService"]

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceAPIsService"].full_name

_SEQUENCE: Final = (SEQUENCE_ID, SEQUENCE_START, SEQUENCE_END)
_RAW: Final = (RAW_BODY, "body")
"""Names that TorchServe's handlers know a request's one input by."""
_PACKAGES: Final = {
    "ModelNotFoundException": "org.pytorch.serve.archive.model",
    "ModelVersionNotFoundException": "org.pytorch.serve.archive.model",
}

Context = grpc.aio.ServicerContext[inference_pb2.PredictionsRequest, inference_pb2.PredictionResponse]


class TorchServeService(inference_pb2_grpc.InferenceAPIsServiceServicer):
    """Serves TorchServe's service over the one predict call; metadata is as `predict_rpc` says."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Ping(  # noqa: N802  # the names in the .proto
        self, request: empty_pb2.Empty, context: Context
    ) -> inference_pb2.TorchServeHealthResponse:
        healthy = await self._gateway.readiness.trouble() is None
        document = {"status": "Healthy" if healthy else "Unhealthy"}
        return inference_pb2.TorchServeHealthResponse(health=json.dumps(document, indent=2) + "\n")

    async def Predictions(  # noqa: N802
        self, request: inference_pb2.PredictionsRequest, context: Context
    ) -> inference_pb2.PredictionResponse:
        async with self._call("Predictions", context) as call:
            prediction = await call.whole(await _predict(call, request))
            call.info.response_bytes = len(prediction)
        return inference_pb2.PredictionResponse(prediction=prediction)

    async def StreamPredictions(  # noqa: N802
        self, request: inference_pb2.PredictionsRequest, context: Context
    ) -> None:
        """Send each piece of a streaming answer as it comes; any other answer is one piece."""
        async with self._call("StreamPredictions", context) as call:
            answer = await _predict(call, request)
            try:
                if not answer.in_pieces:
                    prediction = await call.whole(answer)
                    call.info.response_bytes = len(prediction)
                    await context.write(inference_pb2.PredictionResponse(prediction=prediction))
                    return
                call.info.bodies = "streamed"
                # A client that reads too slowly holds the model up, and must not do so beyond the deadline.
                async with asyncio.timeout(answer.call.deadline.left_s()):
                    async for piece in answer.pieces(max_bytes=self._gateway.settings.max_body_bytes):
                        call.info.response_bytes += len(piece)
                        await context.write(inference_pb2.PredictionResponse(prediction=piece))
            except TimeoutError as exc:
                raise DeadlineExceeded("the deadline passed before the last piece of the answer was read") from exc
            finally:
                answer.close()

    async def StreamPredictions2(  # noqa: N802
        self, requests: AsyncIterator[inference_pb2.PredictionsRequest], context: Context
    ) -> None:
        """Answer each request in its turn, with its sequence's id; one that fails says so and the others go on.

        A version that keeps sequences has one worker answer those of one id. They outlive the call, as in TorchServe.
        """
        async for request in requests:
            response = inference_pb2.PredictionResponse()
            if request.HasField("sequence_id"):
                response.sequence_id = request.sequence_id
            try:
                async with self._call("StreamPredictions2", context, within=True) as call:
                    response.prediction = await call.whole(await _predict(call, request))
                    call.info.response_bytes = len(response.prediction)
            except MarwayError as exc:
                code: tuple[int, str] = code_of(exc).value
                response.status.code, response.status.message = code[0], _details(exc)
            await context.write(response)

    def _call(self, method: str, context: Context, *, within: bool = False) -> AbstractAsyncContextManager[GrpcCall]:
        return predict_rpc(
            self._gateway,
            context,
            method=f"/{SERVICE}/{method}",
            surface="torchserve_grpc",
            details=_details,
            within=within,
        )


async def _predict(call: GrpcCall, request: inference_pb2.PredictionsRequest) -> Answer:
    inputs = dict(request.input)
    if not inputs:
        raise InvalidRequest("the request has no input: give the model's input under the key 'data'")
    name, value = next(iter(inputs.items()))
    if len(inputs) == 1 and name in _RAW:
        body, content_type = value, "application/octet-stream"
    else:
        body, content_type = encode_fields(inputs)
    sequence = {name: call.info.metadata[name] for name in _SEQUENCE if name in call.info.metadata}
    if request.sequence_id:
        sequence[SEQUENCE_ID] = request.sequence_id
    model = request.model_name, request.model_version or None
    return await call.predict(*model, body, content_type=content_type, more_headers=sequence)


def _details(error: MarwayError) -> str:
    """Return the message and, on a line of its own, the name of the exception that TorchServe would have thrown."""
    problem, _ = problem_of(error)
    kind = torchserve_exception(problem)
    return f"{clip(error.message, DETAILS_MAX)}\n{_PACKAGES.get(kind, 'org.pytorch.serve.http')}.{kind}"
