"""Triton's extensions of the Open Inference Protocol that are not served: each call is told what there is instead.

The OpenAPI document leaves these routes out: it names what is served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
from fastapi import FastAPI
from starlette.requests import Request
from starlette.routing import Route

from marway.errors import MarwayError, NotFound, Unimplemented
from marway_gateway.surfaces.grpc.call import refused_rpcs
from marway_http.proto import open_inference_pb2 as pb

__all__ = ["STATISTICS", "add_refused_extensions", "refused_extensions"]

STATISTICS: Final = "statistics are not implemented here: GET /metrics has them for all models, in Prometheus's form"
_CONFIG: Final = (
    "model configurations are not implemented here: GET /v2/models/{model} and ModelMetadata tell inputs and outputs"
)
_GENERATE: Final = (
    "generate is not implemented here: POST /predict/{model} gives the answers of models that stream in pieces"
)
_LOGGING: Final = "log settings are not implemented here: the gateway's configuration has them"
_REPOSITORY: Final = (
    "the model repository is not on this port: POST /v2/repository/… of the admin port, or `marway models`, "
    "`marway load` and `marway unload`, do that"
)
_SHARED: Final = "shared memory is not implemented here: send the data in the request, as binary tensors"
_TRACE: Final = (
    "trace settings are not implemented here: handlers get `traceparent`, and `Server-Timing` says where the time went"
)

_OF_MODEL: Final = ("/v2/models/{model}", "/v2/models/{model}/versions/{selector}")
_REGION: Final = "/region/{region}"
_ROUTES: Final[tuple[tuple[str, str, type[MarwayError]], ...]] = (
    *((f"{model}/config", _CONFIG, Unimplemented) for model in _OF_MODEL),
    *((f"{model}/stats", STATISTICS, Unimplemented) for model in _OF_MODEL),
    *((f"{model}/generate", _GENERATE, Unimplemented) for model in _OF_MODEL),
    *((f"{model}/generate_stream", _GENERATE, Unimplemented) for model in _OF_MODEL),
    *((f"{model}/trace/setting", _TRACE, Unimplemented) for model in ("/v2", *_OF_MODEL)),
    ("/v2/logging", _LOGGING, Unimplemented),
    *(
        (f"/v2/{kind}sharedmemory{region}/{verb}", _SHARED, Unimplemented)
        for kind in ("system", "cuda")
        for region in ("", _REGION)
        for verb in ("status", "register", "unregister")
    ),
    ("/v2/repository/index", _REPOSITORY, NotFound),
    ("/v2/repository/models/{model}/{verb}", _REPOSITORY, NotFound),
)
_RPCS: Final = {
    "CudaSharedMemoryRegister": _SHARED,
    "CudaSharedMemoryStatus": _SHARED,
    "CudaSharedMemoryUnregister": _SHARED,
    "LogSettings": _LOGGING,
    "ModelConfig": _CONFIG,
    "ModelStatistics": STATISTICS,
    "RepositoryIndex": _REPOSITORY,
    "RepositoryModelLoad": _REPOSITORY,
    "RepositoryModelUnload": _REPOSITORY,
    "SystemSharedMemoryRegister": _SHARED,
    "SystemSharedMemoryStatus": _SHARED,
    "SystemSharedMemoryUnregister": _SHARED,
    "TraceSetting": _TRACE,
}


def add_refused_extensions(app: FastAPI) -> None:
    """Add the REST routes to the public app, behind those that are served."""
    for path, message, kind in _ROUTES:
        app.router.routes.append(Route(path, _refusing(kind, message), methods=["GET", "POST"]))


def refused_extensions() -> grpc.GenericRpcHandler[Any, Any]:
    """Return the gRPC methods."""
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    return refused_rpcs(service, _RPCS)


def _refusing(kind: type[MarwayError], message: str) -> Callable[[Request], Awaitable[NoReturn]]:
    async def refuse(_: Request) -> NoReturn:
        raise kind(message)

    return refuse
