"""The Open Inference Protocol v2 over REST (KServe's, Triton's): server and model health, metadata, inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Response

from marway import errors
from marway.records import TensorSpec, VersionRecord
from marway_gateway.gateway import Gateway
from marway_gateway.http.fast_path import FastPathApp
from marway_gateway.openapi import GroupId, Id, Timeout, error_texts, served_by
from marway_gateway.surfaces.open_inference.absent import STATISTICS, add_absent
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
from marway_gateway.tensors.requests import read_infer

__all__ = ["SURFACE", "add_open_inference", "metadata_of"]

SURFACE: Final = "open_inference"

Model = Annotated[
    str, Path(description="A model's name, which means its version at PROD, or a model id.", examples=["intent"])
]
Version = Annotated[str, Path(description="A version, or a label.", examples=["1.0", "PROD"])]


HeaderLength = Annotated[
    int | None,
    Header(
        alias="Inference-Header-Content-Length",
        ge=0,
        description="Bytes of JSON before the binary tensors; 0 where the body is the data of the version's one input.",
    ),
]

_REFERENCE: Final = (
    *(errors.InvalidReference, errors.ModelNotFound, errors.VersionNotFound, errors.LabelNotFound),
    errors.RegistryUnavailable,
)
_BINARY: Final = {"type": "string", "format": "binary"}


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


def add_open_inference(app: FastPathApp, current: Callable[[], Gateway]) -> None:
    """Add the routes to the public app."""
    router = APIRouter(tags=["open inference"])
    _add_health(router, current)
    _add_metadata(router, current)
    app.include_router(router)
    _add_infer(app, current)
    add_absent(app)


def _add_health(router: APIRouter, current: Callable[[], Gateway]) -> None:
    @router.get("/v2/health/live", summary="Does the process run?")
    async def server_live() -> ServerLive:
        return ServerLive()

    @router.get(
        "/v2/health/ready",
        summary="Can it serve?",
        responses=error_texts(errors.NoPodAvailable, errors.RegistryUnavailable),
    )
    async def server_ready() -> ServerReady:
        trouble = await current().readiness.trouble()
        if trouble is not None:
            raise trouble
        return ServerReady()

    not_ready = error_texts(*_REFERENCE, errors.NoPodAvailable)

    @router.get("/v2/models/{model}/ready", summary="Can the model be asked?", responses=not_ready)
    async def model_ready(model: Model) -> ModelReady:
        record = await check_servable(current(), model, None)
        return ModelReady(name=record.name, version=record.version)

    @router.get("/v2/models/{model}/versions/{selector}/ready", summary="Can a version be asked?", responses=not_ready)
    async def model_version_ready(model: Model, selector: Version) -> ModelReady:
        record = await check_servable(current(), model, selector)
        return ModelReady(name=record.name, version=record.version)


def _add_metadata(router: APIRouter, current: Callable[[], Gateway]) -> None:
    @router.get("/v2", summary="What server this is")
    async def server_metadata() -> ServerMetadata:
        return ServerMetadata()

    unknown = error_texts(*_REFERENCE)

    @router.get("/v2/models/{model}", summary="What a model takes and gives", responses=unknown)
    async def model_metadata(model: Model) -> ModelMetadata:
        try:
            return await told(model, None)
        except errors.ModelNotFound as exc:
            if model == "stats":  # Triton's path for the statistics of all models
                raise errors.Unimplemented(STATISTICS) from exc
            raise

    @router.get("/v2/models/{model}/versions/{selector}", summary="What a version takes and gives", responses=unknown)
    async def model_version_metadata(model: Model, selector: Version) -> ModelMetadata:
        return await told(model, selector)

    async def told(model: str, selector: str | None) -> ModelMetadata:
        gateway = current()
        resolved = await gateway.resolver.resolve(model, selector)
        return metadata_of(resolved.record, await versions_of(gateway, resolved.record.name))


def _add_infer(app: FastPathApp, current: Callable[[], Gateway]) -> None:
    inferring = RowRoute(current, surface=SURFACE, read=read_infer)
    explaining = RowRoute(current, surface=SURFACE, read=read_infer, explain=True)

    # The functions below are documentation; `RowRoute` serves the routes.
    async def infer(
        model: Model,
        body: InferRequestBody,
        header_length: HeaderLength = None,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    async def infer_version(
        model: Model,
        selector: Version,
        body: InferRequestBody,
        header_length: HeaderLength = None,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    binary_too: dict[str, Any] = {
        "requestBody": {
            "description": "JSON; with `Inference-Header-Content-Length`, JSON and then the binary tensors, or these "
            "alone.",
            "content": {"application/octet-stream": {"schema": _BINARY}},
        }
    }
    of_version = "/v2/models/{model}/versions/{selector}"
    explain = "Explain, as TorchServe does"
    for path, function, name, summary, served in (
        ("/v2/models/{model}/infer", infer, "infer", "Infer with a model", inferring),
        (f"{of_version}/infer", infer_version, "infer_version", "Infer with a version or a label", inferring),
        ("/v2/models/{model}/explain", infer, "explain", explain, explaining),
        (f"{of_version}/explain", infer_version, "explain_version", f"{explain}, with a version", explaining),
    ):
        app.add_fast("POST", path, served)
        app.router.add_api_route(
            path,
            function,
            methods=["POST"],
            name=name,
            tags=["open inference"],
            summary=summary,
            response_class=Response,
            responses={
                200: {
                    "model": InferResponseBody,
                    "description": "One row of each output for each row of the inputs.",
                    "content": {"application/json": {}, "application/octet-stream": {"schema": _BINARY}},
                },
                **error_texts(
                    *_REFERENCE,
                    *(errors.InvalidRequest, errors.BodyTooLarge, errors.UnsupportedMedia),
                    *(errors.Overloaded, errors.ModelError),
                    *(errors.MarwayError, errors.NoPodAvailable, errors.DeadlineExceeded),
                    *((errors.Unimplemented,) if served is explaining else ()),
                ),
            },
            openapi_extra=binary_too,
            route_class_override=served_by(served),
        )
