"""TorchServe's REST inference API, so that its clients change nothing but the host.

`POST` and `PUT /predictions/{model}[/{version}]` (curl -T sends PUT) with the handler's own answer, errors as
`{"code", "type", "message"}`, and `GET /ping`. Where TorchServe takes a version, this takes a label too; where it
serves a model's default version, this serves the one at `PROD`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from marway_gateway.gateway import Gateway
from marway_gateway.openapi import served_by
from marway_gateway.surfaces.native import NativePredict

__all__ = ["Ping", "TorchServeError", "add_torchserve"]

Model = Annotated[str, Path(description="A model's name, which means its version at PROD.", examples=["intent"])]
Version = Annotated[str, Path(description="A version, or a label.", examples=["1.0", "PROD"])]

_BINARY: Final = {"type": "string", "format": "binary"}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, as TorchServe takes it.",
        "content": {"application/octet-stream": {"schema": _BINARY}},
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


_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The model's own answer: its body, status and content type.",
        "content": {"*/*": {"schema": _BINARY}},
    },
    400: {"model": TorchServeError, "description": "The request is wrong; `message` says how."},
    404: {"model": TorchServeError, "description": "There is no such model, version or label."},
    413: {"model": TorchServeError, "description": "The body is larger than the gateway accepts."},
    429: {"model": TorchServeError, "description": "Too many requests wait already; see `Retry-After`."},
    500: {"model": TorchServeError, "description": "The model's code failed, or something in the gateway did."},
    503: {"model": TorchServeError, "description": "Nothing is wrong with the request; see `Retry-After`."},
    504: {"model": TorchServeError, "description": "The request's deadline passed first."},
}


def add_torchserve(app: FastAPI, current: Callable[[], Gateway]) -> None:
    """Add the routes to the public app."""
    route = served_by(NativePredict(current, surface="torchserve"))

    # The functions below are documentation; `NativePredict` serves the routes.
    async def torchserve_predict(model: Model) -> None:
        raise NotImplementedError

    async def torchserve_predict_version(model: Model, selector: Version) -> None:
        raise NotImplementedError

    for path, function in (
        ("/predictions/{model}", torchserve_predict),
        ("/predictions/{model}/{selector}", torchserve_predict_version),
    ):
        for method in ("POST", "PUT"):
            app.router.add_api_route(
                path,
                function,
                methods=[method],
                tags=["torchserve"],
                name=f"{function.__name__}_{method.lower()}",
                summary=f"Predict as TorchServe's REST API does ({method})",
                response_class=Response,
                responses=_ANSWERS,
                openapi_extra=_BODY,
                route_class_override=route,
            )

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
