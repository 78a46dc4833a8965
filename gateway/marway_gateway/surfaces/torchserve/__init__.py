"""TorchServe's APIs as one surface."""

from __future__ import annotations

from typing import Final

from marway_gateway.proto.torchserve import inference_pb2_grpc
from marway_gateway.surfaces.surface import RpcService, Surface
from marway_gateway.surfaces.torchserve.errors import TORCHSERVE_ERRORS
from marway_gateway.surfaces.torchserve.grpc import SERVICE, TorchServeService
from marway_gateway.surfaces.torchserve.management import add_management, management_rpcs
from marway_gateway.surfaces.torchserve.rest import SEGMENTS, SURFACE, add_torchserve

__all__ = ["TORCHSERVE"]

TORCHSERVE: Final = Surface(
    name=SURFACE,
    tag=SURFACE,
    about="TorchServe's inference API.",
    segments=SEGMENTS,
    error_form=TORCHSERVE_ERRORS,
    add_routes=add_torchserve,
    add_admin_routes=add_management,
    services=(RpcService(SERVICE, inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server, TorchServeService),),
    refused_rpcs=(management_rpcs,),
)
