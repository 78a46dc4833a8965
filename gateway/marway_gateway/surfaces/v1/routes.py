"""The v1 protocol over REST: TensorFlow Serving's, of which KServe speaks predict and model status too."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel

from marway import errors
from marway.refs import check_label
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.error_bodies import ERROR_TEXT
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import (
    PREDICTION_ERRORS,
    REFERENCE_ERRORS,
    Label,
    Model,
    Selector,
    add_served,
    error_responses,
)
from marway_gateway.surfaces.row_routes import RowRoute
from marway_gateway.surfaces.servable import check_servable, versions_of
from marway_gateway.surfaces.trailing_slash import add_trailing_slash
from marway_gateway.surfaces.v1.schema import (
    V1Examples,
    V1Metadata,
    V1Request,
    V1Response,
    V1Results,
    V1Status,
    V1VersionStatus,
    v1_metadata_of,
)
from marway_gateway.tensors.requests import ReadRequest, read_classify, read_explain, read_predict, read_regress

__all__ = ["SURFACE", "add_v1"]

SURFACE: Final = "v1"
_VERBS: Final[tuple[tuple[str, ReadRequest, type[BaseModel], type[BaseModel]], ...]] = (
    ("predict", read_predict, V1Request, V1Response),
    ("explain", read_explain, V1Request, V1Response),
    ("classify", read_classify, V1Examples, V1Results),
    ("regress", read_regress, V1Examples, V1Results),
)


def add_v1(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the routes to the public app."""
    for verb, read, request, response in _VERBS:
        explain = verb == "explain"
        said = verb.capitalize()
        add_served(
            app,
            RowRoute(gateway, surface=SURFACE, read=read, explain=explain),
            (
                (
                    f"/v1/models/{{model}}:{verb}",
                    f"v1_{verb}",
                    f"{said} as {'KServe' if explain else 'TensorFlow Serving'} does",
                ),
                (f"/v1/models/{{model}}/versions/{{selector}}:{verb}", f"v1_{verb}_version", f"{said} with a version"),
                (
                    f"/v1/models/{{model}}/labels/{{label}}:{verb}",
                    f"v1_{verb}_label",
                    f"{said} with the version at a label",
                ),
            ),
            body=request,
            tags=[SURFACE],
            responses={
                200: {"model": response, "description": "One value for each row."},
                **error_responses(ERROR_TEXT, *PREDICTION_ERRORS, *((errors.Unimplemented,) if explain else ())),
            },
        )
    router = APIRouter(tags=[SURFACE], responses=error_responses(ERROR_TEXT, *REFERENCE_ERRORS, errors.NoPodAvailable))
    _add_status(router, gateway)
    _add_metadata(router, gateway)
    app.include_router(router)
    add_trailing_slash(app, "/v1")


def _add_status(router: APIRouter, current: CurrentGateway) -> None:
    async def told(model: str, selector: str | None) -> V1Status:
        gateway = current()
        record = await check_servable(gateway, model, selector)
        # Without a version the protocol means all of them; an id is one version's own.
        every = selector is None and model != record.id
        versions = await versions_of(gateway, record.name) if every else (record.version,)
        return V1Status(
            name=record.name, model_version_status=[V1VersionStatus(version=version) for version in versions]
        )

    @router.get("/v1/models/{model}", summary="Can a model be asked?")
    async def v1_status(model: Model) -> V1Status:
        return await told(model, None)

    @router.get("/v1/models/{model}/versions/{selector}", summary="Can a version be asked?")
    async def v1_version_status(model: Model, selector: Selector) -> V1Status:
        return await told(model, selector)

    @router.get(
        "/v1/models/{model}/labels/{label}",
        summary="Can the version at a label be asked?",
    )
    async def v1_label_status(model: Model, label: Label) -> V1Status:
        return await told(model, check_label(label))


def _add_metadata(router: APIRouter, current: CurrentGateway) -> None:
    async def told(model: str, selector: str | None) -> V1Metadata:
        return v1_metadata_of((await current().resolver.resolve(model, selector)).record)

    @router.get("/v1/models/{model}/metadata", summary="What a model takes and gives")
    async def v1_model_metadata(model: Model) -> V1Metadata:
        return await told(model, None)

    @router.get(
        "/v1/models/{model}/versions/{selector}/metadata",
        summary="What a version takes and gives",
    )
    async def v1_version_metadata(model: Model, selector: Selector) -> V1Metadata:
        return await told(model, selector)

    @router.get(
        "/v1/models/{model}/labels/{label}/metadata",
        summary="What the version at a label takes and gives",
    )
    async def v1_label_metadata(model: Model, label: Label) -> V1Metadata:
        return await told(model, check_label(label))
