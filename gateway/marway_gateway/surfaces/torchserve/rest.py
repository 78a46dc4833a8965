"""TorchServe's REST inference API, so that its clients change nothing but the host.

`POST` and `PUT /predictions/{model}[/{version}]` (curl -T sends PUT) with the handler's own answer; `/explanations/…`,
which asks the handler to explain; errors as `{"code", "type", "message"}`; `GET /ping`; and the paths of
`torchserve.paths`. An empty body is one, as TorchServe has it. Where TorchServe takes a
version, this takes a label too; where it serves a model's default version, this serves the one at `PROD`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from fastapi import Response

from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.openapi import PREDICTION_ERRORS, add_served, error_responses
from marway_gateway.surfaces.native import NativePredict
from marway_gateway.surfaces.torchserve.errors import TORCHSERVE_ERRORS
from marway_gateway.surfaces.torchserve.management import add_management
from marway_gateway.surfaces.torchserve.paths import add_other_paths
from marway_http.pages.openapi import ANSWERS, BODIES

__all__ = ["SEGMENTS", "SURFACE", "Ping", "add_torchserve"]

SURFACE: Final = "torchserve"
SEGMENTS: Final = (
    *("api-description", "explanations", "invocations", "ping", "predictions"),
    *("wfpredict", "workflows"),
)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, as TorchServe takes it.",
        "content": BODIES,
    }
}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The model's own answer: its body, status and content type.", "content": ANSWERS}
}


class Ping(JsonModel):
    """Whether the gateway can serve."""

    model_config = examples({"status": "Healthy"})

    status: Literal["Healthy", "Unhealthy"]


def add_torchserve(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the routes to the public app."""
    handlers = []
    for path, name, summary in (
        ("/predictions", "predict", "Predict as TorchServe's REST API does"),
        ("/explanations", "explain", "Explain a prediction as TorchServe's REST API does"),
    ):
        handler = NativePredict(gateway, surface=SURFACE, explain=name == "explain", may_be_empty=True)
        handlers.append(handler)
        add_served(
            app,
            handler,
            (
                (f"{path}/{{model}}", f"torchserve_{name}", summary),
                (f"{path}/{{model}}/{{selector}}", f"torchserve_{name}_version", summary),
            ),
            methods=("POST", "PUT"),
            headers={},
            tags=[SURFACE],
            responses={**_ANSWER, **error_responses(TORCHSERVE_ERRORS, *PREDICTION_ERRORS)},
            openapi_extra=_BODY,
        )
    add_other_paths(app, *handlers)

    @app.get(
        "/ping",
        tags=[SURFACE],
        summary="Can it serve? In TorchServe's words",
        responses={500: {"model": Ping, "description": "It cannot; `/readyz` says why."}},
    )
    async def ping(response: Response) -> Ping:
        if await gateway().readiness.trouble() is None:
            return Ping(status="Healthy")
        response.status_code = 500
        return Ping(status="Unhealthy")

    add_management(app, gateway)
