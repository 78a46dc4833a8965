"""The Open Inference Protocol v2 over gRPC: `inference.GRPCInferenceService`, as Triton and KServe have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final, NoReturn

import grpc.aio

from marway import __version__
from marway.errors import MarwayError, NoPodAvailable, clip
from marway_gateway.gateway import Gateway
from marway_gateway.surfaces.grpc.call import DETAILS_MAX, predict_rpc
from marway_gateway.surfaces.grpc.status import code_of
from marway_gateway.surfaces.open_inference.messages import infer
from marway_gateway.surfaces.open_inference.metadata import model_metadata
from marway_gateway.surfaces.open_inference.schema import EXTENSIONS
from marway_gateway.surfaces.open_inference.streams import InferStream
from marway_gateway.surfaces.servable import check_servable
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc

__all__ = ["SERVICE", "UNPARSED", "OpenInferenceService"]

SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_INFER: Final = f"/{SERVICE}/ModelInfer"
_STREAM_INFER: Final = f"/{SERVICE}/ModelStreamInfer"
UNPARSED: Final = frozenset({_INFER, _STREAM_INFER})
"""Methods whose messages come and go as bytes: parsing them may take long, and is no work for the event loop."""
_SURFACE: Final = "open_inference_grpc"

Context = grpc.aio.ServicerContext[Any, Any]


class OpenInferenceService(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves the protocol over the one predict call.

    A model's version is a version or a label; none means PROD. Ids and deadline come, and go, as with the other
    services. The repository extension is no part of it: loads and unloads belong to the admin port. That, and what else
    Triton adds, is refused by name (`refused_extensions`).
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=await self._gateway.readiness.trouble() is None)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="marway", version=__version__, extensions=EXTENSIONS)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        try:
            await check_servable(self._gateway, request.name, request.version or None)
        except NoPodAvailable:
            return pb.ModelReadyResponse(ready=False)
        except MarwayError as exc:
            await _refuse(exc, context)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        try:
            told = await model_metadata(self._gateway, request.name, request.version or None)
        except MarwayError as exc:
            await _refuse(exc, context)
        kind = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=told.name,
            versions=told.versions,
            platform=told.platform,
            inputs=[kind(name=each.name, datatype=each.datatype, shape=each.shape) for each in told.inputs],
            outputs=[kind(name=each.name, datatype=each.datatype, shape=each.shape) for each in told.outputs],
        )

    async def ModelInfer(self, request: bytes, context: Context) -> bytes:  # noqa: N802
        size = len(request)
        async with predict_rpc(self._gateway, context, method=_INFER, surface=_SURFACE) as call:
            call.info.request_bytes = size
            response = await infer(self._gateway, call, request)
            call.info.response_bytes = len(response)
        return response

    async def ModelStreamInfer(self, requests: AsyncIterator[bytes], context: Context) -> None:  # noqa: N802
        opened = partial(predict_rpc, self._gateway, context, method=_STREAM_INFER, surface=_SURFACE, within=True)
        try:
            await InferStream(self._gateway, opened, context.write).answer(requests)
        except MarwayError as exc:
            await _refuse(exc, context)


async def _refuse(error: MarwayError, context: Context) -> NoReturn:
    await context.abort(code_of(error), clip(error.message, DETAILS_MAX))
