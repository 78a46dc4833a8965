"""TorchServe's REST inference API, so that its clients change nothing but the host.

`POST` and `PUT /predictions/{model}[/{version}]` (curl -T sends PUT) with the handler's own answer; `/explanations/…`,
which asks the handler to explain; errors as `{"code", "type", "message"}`; `GET /ping`; and the paths of
`torchserve_paths`. An empty body is one, as TorchServe has it. Where TorchServe takes a
version, this takes a label too; where it serves a model's default version, this serves the one at `PROD`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import Path, Response
from pydantic import BaseModel, ConfigDict, Field

from marway import errors
from marway.wire.openapi import ANSWERS, BODIES, RETRY_AFTER
from marway.wire.problems import problem_of
from marway_gateway.gateway import Gateway
from marway_gateway.http.fast_path import FastPathApp
from marway_gateway.openapi import add_served, error_examples
from marway_gateway.surfaces.error_bodies import error_body
from marway_gateway.surfaces.native import NativePredict
from marway_gateway.surfaces.torchserve.paths import add_other_paths

__all__ = ["Ping", "TorchServeError", "add_torchserve"]

Model = Annotated[str, Path(description="A model's name, which means its version at PROD.", examples=["intent"])]
Version = Annotated[str, Path(description="A version, or a label.", examples=["1.0", "PROD"])]

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, as TorchServe takes it.",
        "content": BODIES,
    }
}


class TorchServeError(BaseModel):
    """An error as TorchServe's clients know it."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"code": 404, "type": "ModelNotFoundException", "message": "there is no model 'itent': ..."},
            ]
        },
    )

    code: int = Field(description="The HTTP status.")
    type: str = Field(description="The name of TorchServe's exception.")
    message: str = Field(description="What is wrong, and what to do.")


class Ping(BaseModel):
    """Whether the gateway can serve."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"status": "Healthy"}]})

    status: Literal["Healthy", "Unhealthy"]


_TITLES: Final = {
    400: "The request is wrong; `message` says how.",
    404: "There is no such model, version or label.",
    413: "The body is larger than the gateway accepts.",
    415: "The body is in a coding that is not taken here.",
    429: "Too many requests wait already; see `Retry-After`.",
    500: "The model's code failed, or something in the gateway did.",
    503: "Nothing is wrong with the request; see `Retry-After`.",
    504: "The request's deadline passed first.",
}


def _answers() -> dict[int | str, dict[str, Any]]:
    """Return what the routes answer: the model's own answer, and each error in TorchServe's form."""
    answers: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "The model's own answer: its body, status and content type.",
            "content": ANSWERS,
        }
    }
    kinds = (
        *(errors.InvalidReference, errors.InvalidRequest, errors.ModelNotFound, errors.VersionNotFound),
        *(errors.LabelNotFound, errors.BodyTooLarge, errors.UnsupportedMedia),
        *(errors.Overloaded, errors.ModelError, errors.MarwayError),
        *(errors.NoPodAvailable, errors.RegistryUnavailable, errors.DeadlineExceeded),
    )
    for error in error_examples(*kinds):
        problem, headers = problem_of(error)
        answer = answers.setdefault(
            problem.status,
            {
                "model": TorchServeError,
                "description": _TITLES[problem.status],
                "content": {"application/json": {"examples": {}}},
            },
        )
        body, _ = error_body("torchserve", problem)
        answer["content"]["application/json"]["examples"][error.code] = {
            "summary": error.title,
            "value": json.loads(body),
        }
        if headers:
            answer["headers"] = RETRY_AFTER
    return answers


def add_torchserve(app: FastPathApp, current: Callable[[], Gateway]) -> None:
    """Add the routes to the public app."""

    # The functions below are documentation; `NativePredict` serves the routes.
    async def torchserve_predict(model: Model) -> None:
        raise NotImplementedError

    async def torchserve_predict_version(model: Model, selector: Version) -> None:
        raise NotImplementedError

    async def torchserve_explain(model: Model) -> None:
        raise NotImplementedError

    async def torchserve_explain_version(model: Model, selector: Version) -> None:
        raise NotImplementedError

    predicting = NativePredict(current, surface="torchserve", may_be_empty=True)
    explaining = NativePredict(current, surface="torchserve", explain=True, may_be_empty=True)
    predict, explain = "Predict as TorchServe's REST API does", "Explain a prediction as TorchServe's REST API does"
    for handler, routes in (
        (
            predicting,
            (
                ("/predictions/{model}", torchserve_predict, predict),
                ("/predictions/{model}/{selector}", torchserve_predict_version, predict),
            ),
        ),
        (
            explaining,
            (
                ("/explanations/{model}", torchserve_explain, explain),
                ("/explanations/{model}/{selector}", torchserve_explain_version, explain),
            ),
        ),
    ):
        add_served(
            app,
            handler,
            routes,
            methods=("POST", "PUT"),
            tags=["torchserve"],
            responses=_answers(),
            openapi_extra=_BODY,
        )

    add_other_paths(app, predicting, explaining)

    @app.get(
        "/ping",
        tags=["torchserve"],
        summary="Can it serve? In TorchServe's words",
        responses={500: {"model": Ping, "description": "It cannot; `/readyz` says why."}},
    )
    async def ping(response: Response) -> Ping:
        if await current().readiness.trouble() is None:
            return Ping(status="Healthy")
        response.status_code = 500
        return Ping(status="Unhealthy")
