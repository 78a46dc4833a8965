"""The Open Inference Protocol as one surface."""

from __future__ import annotations

from typing import Final

from marway_gateway.http.error_bodies import ERROR_TEXT
from marway_gateway.proto import open_inference_pb2_grpc
from marway_gateway.surfaces.open_inference.grpc import SERVICE, UNPARSED, OpenInferenceService
from marway_gateway.surfaces.open_inference.refused import refused_extensions
from marway_gateway.surfaces.open_inference.repository import add_repository
from marway_gateway.surfaces.open_inference.routes import SURFACE, TAG, add_open_inference
from marway_gateway.surfaces.surface import RpcService, Surface

__all__ = ["OPEN_INFERENCE"]

OPEN_INFERENCE: Final = Surface(
    name=SURFACE,
    tag=TAG,
    about="The Open Inference Protocol v2, as Triton and KServe speak it.",
    segments=("v2",),
    error_form=ERROR_TEXT,
    add_routes=add_open_inference,
    add_admin_routes=add_repository,
    services=(
        RpcService(SERVICE, open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server, OpenInferenceService),
    ),
    refused_rpcs=(refused_extensions,),
    unparsed_rpcs=frozenset({UNPARSED}),
)
