"""The v1 protocol over REST: TensorFlow Serving's, of which KServe speaks predict and model status too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import FastAPI, Path, Response
from pydantic import BaseModel

from marway import errors
from marway.refs import check_label
from marway_gateway.gateway import Gateway
from marway_gateway.http.fast_path import FastPathApp
from marway_gateway.openapi import GroupId, Id, Timeout, error_texts, served_by
from marway_gateway.surfaces.row_routes import RowRoute
from marway_gateway.surfaces.servable import check_servable, versions_of
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

Model = Annotated[
    str, Path(description="A model's name, which means its version at PROD, or a model id.", examples=["intent"])
]
Version = Annotated[str, Path(description="A version, or a label.", examples=["1.0"])]
Label = Annotated[str, Path(description="A label.", examples=["PROD"])]


_REFERENCE: Final = (
    *(errors.InvalidReference, errors.ModelNotFound, errors.VersionNotFound, errors.LabelNotFound),
    *(errors.RegistryUnavailable, errors.NoPodAvailable),
)


def add_v1(app: FastPathApp, current: Callable[[], Gateway]) -> None:
    """Add the routes to the public app."""
    _add_predict(app, current)
    _add_status(app, current)
    _add_metadata(app, current)


def _add_predict(app: FastPathApp, current: Callable[[], Gateway]) -> None:
    predict, results = (V1Request, V1Response), (V1Examples, V1Results)
    _add_verb(app, current, "predict", read_predict, *predict)
    _add_verb(app, current, "explain", read_explain, *predict, explain=True)
    _add_verb(app, current, "classify", read_classify, *results)
    _add_verb(app, current, "regress", read_regress, *results)


def _add_verb(
    app: FastPathApp,
    current: Callable[[], Gateway],
    verb: str,
    read: ReadRequest,
    request: type[BaseModel],
    response: type[BaseModel],
    *,
    explain: bool = False,
) -> None:
    handler = RowRoute(current, surface=SURFACE, read=read, explain=explain)
    route = served_by(handler)

    # The functions below are documentation; `RowRoute` serves the routes.
    async def asked(
        model: Model,
        body: BaseModel,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    async def asked_version(
        model: Model,
        selector: Version,
        body: BaseModel,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    async def asked_label(
        model: Model,
        label: Label,
        body: BaseModel,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    framework = "KServe" if explain else "TensorFlow Serving"
    for path, name, function, said in (
        ("/v1/models/{model}", f"v1_{verb}", asked, f"as {framework} does"),
        ("/v1/models/{model}/versions/{selector}", f"v1_{verb}_version", asked_version, "with a version"),
        ("/v1/models/{model}/labels/{label}", f"v1_{verb}_label", asked_label, "with the version at a label"),
    ):
        function.__annotations__["body"] = request
        app.add_fast("POST", f"{path}:{verb}", handler)
        app.router.add_api_route(
            f"{path}:{verb}",
            function,
            methods=["POST"],
            name=name,
            tags=["v1"],
            summary=f"{verb.capitalize()} {said}",
            response_class=Response,
            responses={
                200: {"model": response, "description": "One value for each row."},
                **error_texts(
                    *_REFERENCE,
                    *(errors.InvalidRequest, errors.BodyTooLarge, errors.UnsupportedMedia),
                    *(errors.Overloaded, errors.ModelError),
                    *(errors.MarwayError, errors.DeadlineExceeded),
                    *((errors.Unimplemented,) if explain else ()),
                ),
            },
            route_class_override=route,
        )


def _add_status(app: FastAPI, current: Callable[[], Gateway]) -> None:
    async def told(model: str, selector: str | None) -> V1Status:
        gateway = current()
        record = await check_servable(gateway, model, selector)
        # Without a version the protocol means all of them; an id is one version's own.
        every = selector is None and model != record.id
        versions = await versions_of(gateway, record.name) if every else (record.version,)
        return V1Status(
            name=record.name, model_version_status=[V1VersionStatus(version=version) for version in versions]
        )

    responses = error_texts(*_REFERENCE)

    @app.get("/v1/models/{model}", tags=["v1"], summary="Can a model be asked?", responses=responses)
    async def v1_status(model: Model) -> V1Status:
        return await told(model, None)

    @app.get(
        "/v1/models/{model}/versions/{selector}", tags=["v1"], summary="Can a version be asked?", responses=responses
    )
    async def v1_version_status(model: Model, selector: Version) -> V1Status:
        return await told(model, selector)

    @app.get(
        "/v1/models/{model}/labels/{label}",
        tags=["v1"],
        summary="Can the version at a label be asked?",
        responses=responses,
    )
    async def v1_label_status(model: Model, label: Label) -> V1Status:
        return await told(model, check_label(label))


def _add_metadata(app: FastAPI, current: Callable[[], Gateway]) -> None:
    async def told(model: str, selector: str | None) -> V1Metadata:
        return v1_metadata_of((await current().resolver.resolve(model, selector)).record)

    responses = error_texts(*_REFERENCE)

    @app.get("/v1/models/{model}/metadata", tags=["v1"], summary="What a model takes and gives", responses=responses)
    async def v1_model_metadata(model: Model) -> V1Metadata:
        return await told(model, None)

    @app.get(
        "/v1/models/{model}/versions/{selector}/metadata",
        tags=["v1"],
        summary="What a version takes and gives",
        responses=responses,
    )
    async def v1_version_metadata(model: Model, selector: Version) -> V1Metadata:
        return await told(model, selector)

    @app.get(
        "/v1/models/{model}/labels/{label}/metadata",
        tags=["v1"],
        summary="What the version at a label takes and gives",
        responses=responses,
    )
    async def v1_label_metadata(model: Model, label: Label) -> V1Metadata:
        return await told(model, check_label(label))
