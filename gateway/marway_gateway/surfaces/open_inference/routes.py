"""The Open Inference Protocol v2 over REST (KServe's, Triton's): server and model health, metadata, inference."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header

from marway import errors
from marway.records import TensorSpec, VersionRecord
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.error_bodies import ERROR_TEXT
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import (
    PREDICTION_ERRORS,
    REFERENCE_ERRORS,
    REQUEST_HEADERS,
    Model,
    Selector,
    add_served,
    error_responses,
)
from marway_gateway.surfaces.open_inference.refused import STATISTICS, add_refused_extensions
from marway_gateway.surfaces.open_inference.schema import (
    InferRequestBody,
    InferResponseBody,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from marway_gateway.surfaces.row_routes import RowRoute
from marway_gateway.surfaces.servable import check_servable, versions_of
from marway_gateway.surfaces.trailing_slash import add_trailing_slash
from marway_gateway.tensors.requests import read_infer

__all__ = ["SURFACE", "TAG", "add_open_inference", "metadata_of"]

SURFACE: Final = "open_inference"
TAG: Final = "open inference"
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


def metadata_of(record: VersionRecord, versions: tuple[str, ...]) -> ModelMetadata:
    """Return what the protocol tells of a version."""

    def told(specs: tuple[TensorSpec, ...]) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in specs)

    return ModelMetadata(
        name=record.name,
        versions=versions,
        platform="_".join(part for part in (record.framework, record.backend) if part),
        inputs=told(record.signature.inputs),
        outputs=told(record.signature.outputs),
    )


def add_open_inference(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the routes to the public app."""
    router = APIRouter(tags=[TAG])
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

    not_ready = error_responses(ERROR_TEXT, *REFERENCE_ERRORS, errors.NoPodAvailable)

    @router.get("/v2/models/{model}/ready", summary="Can the model be asked?", responses=not_ready)
    async def model_ready(model: Model) -> ModelReady:
        record = await check_servable(current(), model, None)
        return ModelReady(name=record.name, version=record.version)

    @router.get("/v2/models/{model}/versions/{selector}/ready", summary="Can a version be asked?", responses=not_ready)
    async def model_version_ready(model: Model, selector: Selector) -> ModelReady:
        record = await check_servable(current(), model, selector)
        return ModelReady(name=record.name, version=record.version)


def _add_metadata(router: APIRouter, current: CurrentGateway) -> None:
    @router.get("/v2", summary="What server this is")
    async def server_metadata() -> ServerMetadata:
        return ServerMetadata()

    unknown = error_responses(ERROR_TEXT, *REFERENCE_ERRORS)

    @router.get("/v2/models/{model}", summary="What a model takes and gives", responses=unknown)
    async def model_metadata(model: Model) -> ModelMetadata:
        try:
            return await told(model, None)
        except errors.ModelNotFound as exc:
            if model == "stats":  # Triton's path for the statistics of all models
                raise errors.Unimplemented(STATISTICS) from exc
            raise

    @router.get("/v2/models/{model}/versions/{selector}", summary="What a version takes and gives", responses=unknown)
    async def model_version_metadata(model: Model, selector: Selector) -> ModelMetadata:
        return await told(model, selector)

    async def told(model: str, selector: str | None) -> ModelMetadata:
        gateway = current()
        resolved = await gateway.resolver.resolve(model, selector)
        return metadata_of(resolved.record, await versions_of(gateway, resolved.record.name))


def _add_infer(app: FastPathApp, gateway: CurrentGateway) -> None:
    of_model, of_version = "/v2/models/{model}", "/v2/models/{model}/versions/{selector}"
    inferring, explaining = "Infer with a model", "Explain, as TorchServe does"
    for verb, summary, summary_of_version in (
        ("infer", inferring, "Infer with a version or a label"),
        ("explain", explaining, f"{explaining}, with a version"),
    ):
        explain = verb == "explain"
        add_served(
            app,
            RowRoute(gateway, surface=SURFACE, read=read_infer, explain=explain),
            ((f"{of_model}/{verb}", verb, summary), (f"{of_version}/{verb}", f"{verb}_version", summary_of_version)),
            body=InferRequestBody,
            headers=_HEADERS,
            tags=[TAG],
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
