"""The v1 protocol over REST: TensorFlow Serving's, of which KServe speaks predict and model status too."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel

from marway import errors
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.error_bodies import ERROR_TEXT
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import PREDICTION_ERRORS, REFERENCE_ERRORS, add_served, error_responses
from marway_gateway.surfaces.reference_routes import add_reference_routes, add_trailing_slash
from marway_gateway.surfaces.row_calls import RowRoute
from marway_gateway.surfaces.servable import check_servable, versions_of
from marway_gateway.surfaces.surface import Surface
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
from marway_http.tensors.requests import ReadRequest
from marway_http.tensors.v1 import read_classify, read_explain, read_predict, read_regress

__all__ = ["V1"]

_NAME: Final = "v1"
_OF_MODEL: Final = "/v1/models/{model}"
_OF_VERSION: Final = f"{_OF_MODEL}/versions/{{selector}}"
_OF_LABEL: Final = f"{_OF_MODEL}/labels/{{label}}"
_VERBS: Final[tuple[tuple[str, ReadRequest, type[BaseModel], type[BaseModel]], ...]] = (
    ("predict", read_predict, V1Request, V1Response),
    ("explain", read_explain, V1Request, V1Response),
    ("classify", read_classify, V1Examples, V1Results),
    ("regress", read_regress, V1Examples, V1Results),
)


def _add_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    for verb, read, request, response in _VERBS:
        explain = verb == "explain"
        title, whose = verb.capitalize(), "KServe" if explain else "TensorFlow Serving"
        add_served(
            app,
            RowRoute(gateway, surface=_NAME, read=read, explain=explain),
            (
                (f"{_OF_MODEL}:{verb}", f"v1_{verb}", f"{title} as {whose} does"),
                (f"{_OF_VERSION}:{verb}", f"v1_{verb}_version", f"{title} with a version"),
                (f"{_OF_LABEL}:{verb}", f"v1_{verb}_label", f"{title} with the version at a label"),
            ),
            body=request,
            predicts=not explain,
            tags=[_NAME],
            responses={
                200: {"model": response, "description": "One value for each row."},
                **error_responses(ERROR_TEXT, *PREDICTION_ERRORS, *((errors.Unimplemented,) if explain else ())),
            },
        )
    router = APIRouter(tags=[_NAME], responses=error_responses(ERROR_TEXT, *REFERENCE_ERRORS, errors.NoPodAvailable))

    async def status(model: str, selector: str | None) -> V1Status:
        current = gateway()
        record = await check_servable(current, model, selector)
        # Without a version the protocol means all of them; an id is one version's own.
        every = selector is None and model != record.id
        versions = await versions_of(current, record.name) if every else (record.version,)
        return V1Status(
            name=record.name, model_version_status=[V1VersionStatus(version=version) for version in versions]
        )

    async def metadata(model: str, selector: str | None) -> V1Metadata:
        return v1_metadata_of((await gateway().resolver.resolve(model, selector)).record)

    add_reference_routes(
        router,
        status,
        (
            (_OF_MODEL, "v1_status", "Can a model be asked?"),
            (_OF_VERSION, "v1_version_status", "Can a version be asked?"),
            (_OF_LABEL, "v1_label_status", "Can the version at a label be asked?"),
        ),
        response_model=V1Status,
    )
    add_reference_routes(
        router,
        metadata,
        (
            (f"{_OF_MODEL}/metadata", "v1_model_metadata", "What a model takes and gives"),
            (f"{_OF_VERSION}/metadata", "v1_version_metadata", "What a version takes and gives"),
            (f"{_OF_LABEL}/metadata", "v1_label_metadata", "What the version at a label takes and gives"),
        ),
        response_model=V1Metadata,
    )
    app.include_router(router)
    add_trailing_slash(app, "/v1")


V1: Final = Surface(
    name=_NAME,
    tag=_NAME,
    about="The v1 protocol of TensorFlow Serving and KServe.",
    segments=("v1",),
    error_form=ERROR_TEXT,
    add_routes=_add_routes,
)
