"""The Open Inference Protocol v2 over REST (KServe's, Triton's): server and model health, metadata, inference."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header

from marway import errors
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.error_bodies import ERROR_TEXT
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import PREDICTION_ERRORS, REFERENCE_ERRORS, REQUEST_HEADERS, add_served, error_responses
from marway_gateway.surfaces.open_inference.grpc import SERVICE, UNPARSED, OpenInferenceService
from marway_gateway.surfaces.open_inference.metadata import model_metadata
from marway_gateway.surfaces.open_inference.passing import InferRoute
from marway_gateway.surfaces.open_inference.refused import STATISTICS, add_refused_extensions, refused_extensions
from marway_gateway.surfaces.open_inference.repository import add_repository
from marway_gateway.surfaces.open_inference.schema import (
    InferRequestBody,
    InferResponseBody,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from marway_gateway.surfaces.reference_routes import add_reference_routes, add_trailing_slash
from marway_gateway.surfaces.servable import check_servable
from marway_gateway.surfaces.surface import RpcService, Surface
from marway_http.proto import open_inference_pb2_grpc
from marway_http.tensors.v2_json import read_infer

__all__ = ["OPEN_INFERENCE"]

_NAME: Final = "open_inference"
_TAG: Final = "open inference"
_OF_MODEL: Final = "/v2/models/{model}"
_OF_VERSION: Final = f"{_OF_MODEL}/versions/{{selector}}"
_HEADERS: Final = {
    "header_length": Annotated[
        int | None,
        Header(
            alias="Inference-Header-Content-Length",
            ge=0,
            description="Bytes of JSON before the binary tensors; 0 where the body is the data of the version's one "
            "input.",
        ),
    ],
    **REQUEST_HEADERS,
}
_BINARY: Final = {"type": "string", "format": "binary"}
_BINARY_TOO: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "JSON; with `Inference-Header-Content-Length`, JSON and then the binary tensors, or these "
        "alone.",
        "content": {"application/octet-stream": {"schema": _BINARY}},
    }
}


def _add_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    router = APIRouter(tags=[_TAG])
    _add_health(router, gateway)
    _add_metadata(router, gateway)
    app.include_router(router)
    _add_infer(app, gateway)
    add_refused_extensions(app)
    add_trailing_slash(app, "/v2")


def _add_health(router: APIRouter, current: CurrentGateway) -> None:
    @router.get("/v2/health/live", summary="Does the process run?")
    async def server_live() -> ServerLive:
        return ServerLive()

    @router.get(
        "/v2/health/ready",
        summary="Can it serve?",
        responses=error_responses(ERROR_TEXT, errors.NoPodAvailable, errors.RegistryUnavailable),
    )
    async def server_ready() -> ServerReady:
        trouble = await current().readiness.trouble()
        if trouble is not None:
            raise trouble
        return ServerReady()

    async def ready(model: str, selector: str | None) -> ModelReady:
        record = await check_servable(current(), model, selector)
        return ModelReady(name=record.name, version=record.version)

    add_reference_routes(
        router,
        ready,
        (
            (f"{_OF_MODEL}/ready", "model_ready", "Can the model be asked?"),
            (f"{_OF_VERSION}/ready", "model_version_ready", "Can a version be asked?"),
        ),
        response_model=ModelReady,
        responses=error_responses(ERROR_TEXT, *REFERENCE_ERRORS, errors.NoPodAvailable),
    )


def _add_metadata(router: APIRouter, current: CurrentGateway) -> None:
    @router.get("/v2", summary="What server this is")
    async def server_metadata() -> ServerMetadata:
        return ServerMetadata()

    async def told(model: str, selector: str | None) -> ModelMetadata:
        try:
            return await model_metadata(current(), model, selector)
        except errors.ModelNotFound as exc:
            if model == "stats" and selector is None:  # Triton's path for the statistics of all models
                raise errors.Unimplemented(STATISTICS) from exc
            raise

    add_reference_routes(
        router,
        told,
        (
            (_OF_MODEL, "model_metadata", "What a model takes and gives"),
            (_OF_VERSION, "model_version_metadata", "What a version takes and gives"),
        ),
        response_model=ModelMetadata,
        responses=error_responses(ERROR_TEXT, *REFERENCE_ERRORS, errors.MarwayError, errors.NoPodAvailable),
    )


def _add_infer(app: FastPathApp, gateway: CurrentGateway) -> None:
    inferring, explaining = "Infer with a model", "Explain, as TorchServe does"
    for verb, summary, summary_of_version in (
        ("infer", inferring, "Infer with a version or a label"),
        ("explain", explaining, f"{explaining}, with a version"),
    ):
        explain = verb == "explain"
        add_served(
            app,
            InferRoute(gateway, surface=_NAME, read=read_infer, explain=explain),
            ((f"{_OF_MODEL}/{verb}", verb, summary), (f"{_OF_VERSION}/{verb}", f"{verb}_version", summary_of_version)),
            body=InferRequestBody,
            headers=_HEADERS,
            predicts=not explain,
            tags=[_TAG],
            responses={
                200: {
                    "model": InferResponseBody,
                    "description": "One row of each output for each row of the inputs.",
                    "content": {"application/json": {}, "application/octet-stream": {"schema": _BINARY}},
                },
                **error_responses(ERROR_TEXT, *PREDICTION_ERRORS, *((errors.Unimplemented,) if explain else ())),
            },
            openapi_extra=_BINARY_TOO,
        )


OPEN_INFERENCE: Final = Surface(
    name=_NAME,
    tag=_TAG,
    about="The Open Inference Protocol v2, as Triton and KServe speak it.",
    segments=("v2",),
    error_form=ERROR_TEXT,
    add_routes=_add_routes,
    add_admin_routes=add_repository,
    services=(
        RpcService(SERVICE, open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server, OpenInferenceService),
    ),
    refused_rpcs=(refused_extensions,),
    unparsed_rpcs=UNPARSED,
)
