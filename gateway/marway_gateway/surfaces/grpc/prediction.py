"""The book's gRPC service, `prediction.PredictionService/Predict`: one text in, one text out."""

from __future__ import annotations

from typing import Final

import grpc.aio

from marway.errors import InvalidRequest, clip
from marway.refs import parse_reference
from marway_gateway.gateway import Gateway
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.surfaces.grpc.call import predict_rpc
from marway_gateway.surfaces.surface import RpcService, Surface

__all__ = ["PREDICTION", "PredictionService"]

_SERVICE: Final = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name

Context = grpc.aio.ServicerContext[prediction_pb2.PredictRequest, prediction_pb2.PredictResponse]


class PredictionService(prediction_pb2_grpc.PredictionServiceServicer):
    """Serves the book's service over the one predict call.

    `runId` is a model id, or a model name, which means its PROD version. Metadata is as `predict_rpc` says.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Predict(  # noqa: N802  # the name in the .proto
        self, request: prediction_pb2.PredictRequest, context: Context
    ) -> prediction_pb2.PredictResponse:
        async with predict_rpc(
            self._gateway, context, method=f"/{_SERVICE}/Predict", surface="prediction_grpc"
        ) as call:
            if not request.runId:
                raise InvalidRequest("runId is empty: give a model id or a model name")
            reference = parse_reference(request.runId)
            if reference.selector is not None:
                raise InvalidRequest(
                    f"runId {clip(request.runId, 140)!r} has a version or label: give a model id or a model name alone"
                )
            answer = await call.predict(
                reference.name, None, request.document.encode(), content_type="text/plain; charset=utf-8"
            )
            text = (await call.whole(answer)).decode(errors="replace")
            response = prediction_pb2.PredictResponse(response=text)
            call.info.response_bytes = len(text.encode())
        return response


PREDICTION: Final = Surface(
    name="prediction_grpc",
    services=(RpcService(_SERVICE, prediction_pb2_grpc.add_PredictionServiceServicer_to_server, PredictionService),),
)
