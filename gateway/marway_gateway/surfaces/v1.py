"""The v1 protocol over REST: TensorFlow Serving's predict and model status, as KServe speaks them too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from fastapi import FastAPI, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from marway import errors
from marway.refs import check_label
from marway_gateway.gateway import Gateway
from marway_gateway.openapi import GroupId, Id, Timeout, error_texts, served_by
from marway_gateway.surfaces.open_inference_schema import JsonValue
from marway_gateway.surfaces.row_routes import RowRoute
from marway_gateway.surfaces.servable import check_servable, versions_of
from marway_gateway.tensors.requests import read_predict

__all__ = ["SURFACE", "add_v1"]

SURFACE: Final = "v1"

Model = Annotated[
    str, Path(description="A model's name, which means its version at PROD, or a model id.", examples=["intent"])
]
Version = Annotated[str, Path(description="A version, or a label.", examples=["1.0"])]
Label = Annotated[str, Path(description="A label.", examples=["PROD"])]


class V1Request(BaseModel):
    """Rows, or columns: `instances` or `inputs`."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"instances": ["wake me at seven", "tell me a joke"]},
                {"inputs": {"text": ["wake me at seven"]}, "signature_name": "serving_default"},
            ]
        },
    )

    signature_name: Literal["", "serving_default"] | None = Field(default=None, description="A model has this one.")
    instances: list[JsonValue] | None = Field(default=None, description="A value for each row.")
    inputs: dict[str, list[JsonValue]] | list[JsonValue] | None = Field(
        default=None, description="A list of one value a row, or such a list for each named input."
    )


class V1Response(BaseModel):
    """`predictions` to instances, `outputs` to columns."""

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"examples": [{"predictions": [{"label": "set_alarm", "score": 0.98}]}]}
    )

    predictions: list[JsonValue] | None = Field(default=None, description="A value for each row.")
    outputs: dict[str, list[JsonValue]] | list[JsonValue] | None = Field(
        default=None, description="A list of one value a row, or such a list for each named output."
    )


class V1VersionError(BaseModel):
    """What TensorFlow Serving says when all is well."""

    model_config = ConfigDict(frozen=True)

    error_code: Literal["OK"] = "OK"
    error_message: Literal[""] = ""


class V1VersionStatus(BaseModel):
    """One version that can be asked."""

    model_config = ConfigDict(frozen=True)

    version: str
    state: Literal["AVAILABLE"] = "AVAILABLE"
    status: V1VersionError = V1VersionError()


class V1Status(BaseModel):
    """A model that can be asked, in KServe's words (`ready`) and in TensorFlow Serving's."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "intent",
                    "ready": True,
                    "model_version_status": [
                        {"version": "1.0", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
                    ],
                }
            ]
        },
    )

    name: str
    ready: Literal[True] = True
    model_version_status: list[V1VersionStatus]


_REFERENCE: Final = (
    *(errors.InvalidReference, errors.ModelNotFound, errors.VersionNotFound, errors.LabelNotFound),
    *(errors.RegistryUnavailable, errors.NoPodAvailable),
)


def add_v1(app: FastAPI, current: Callable[[], Gateway]) -> None:
    """Add the routes to the public app."""
    _add_predict(app, current)
    _add_status(app, current)


def _add_predict(app: FastAPI, current: Callable[[], Gateway]) -> None:
    route = served_by(RowRoute(current, surface=SURFACE, read=read_predict))

    # The functions below are documentation; `RowRoute` serves the routes.
    async def v1_predict(
        model: Model,
        body: V1Request,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    async def v1_predict_version(
        model: Model,
        selector: Version,
        body: V1Request,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    async def v1_predict_label(
        model: Model,
        label: Label,
        body: V1Request,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError

    for path, function, summary in (
        ("/v1/models/{model}:predict", v1_predict, "Predict as TensorFlow Serving does"),
        ("/v1/models/{model}/versions/{selector}:predict", v1_predict_version, "Predict with a version"),
        ("/v1/models/{model}/labels/{label}:predict", v1_predict_label, "Predict with the version at a label"),
    ):
        app.router.add_api_route(
            path,
            function,
            methods=["POST"],
            tags=["v1"],
            summary=summary,
            response_class=Response,
            responses={
                200: {"model": V1Response, "description": "One value for each row."},
                **error_texts(
                    *_REFERENCE,
                    *(errors.InvalidRequest, errors.BodyTooLarge, errors.Overloaded, errors.ModelError),
                    *(errors.MarwayError, errors.DeadlineExceeded),
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
