"""TorchServe's REST inference API, so that its clients change nothing but the host.

`POST` and `PUT /predictions/{model}[/{version}]` (curl -T sends PUT) with the handler's own answer; `/explanations/…`,
which asks the handler to explain; errors as `{"code", "type", "message"}`; `GET /ping`. An empty body is one, as
TorchServe has it. Where TorchServe takes a version, this takes a label too; where it serves a model's default version,
this serves the one at `PROD`.

Other paths of that API are served too, and left out of the OpenAPI document: a slash at the end; what stands behind a
version, which handlers find as `url_path`; GET, for handlers that need no input; `/models/{model}/invoke` and
`/invocations?model_name={model}`, as SageMaker's containers have them; and the description of the API, which is this
gateway's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qs

from fastapi import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from marway.errors import InvalidRequest
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.openapi import PREDICTION_ERRORS, add_served, error_responses
from marway_gateway.proto.torchserve import inference_pb2_grpc
from marway_gateway.surfaces.native import NativePredict
from marway_gateway.surfaces.surface import RpcService, Surface
from marway_gateway.surfaces.torchserve.errors import TORCHSERVE_ERRORS
from marway_gateway.surfaces.torchserve.grpc import SERVICE, TorchServeService
from marway_gateway.surfaces.torchserve.management import add_description, add_management, management_rpcs
from marway_gateway.surfaces.torchserve.workflows import add_workflow_management, add_workflows
from marway_http.pages.openapi import ANSWERS, BODIES

__all__ = ["TORCHSERVE", "Ping"]

_NAME: Final = "torchserve"
_METHODS: Final = ("GET", "POST", "PUT")
"""TorchServe takes any method for a prediction; these are the ones that mean something."""
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


def _add_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    handlers = []
    for path, name, summary in (
        ("/predictions", "predict", "Predict as TorchServe's REST API does"),
        ("/explanations", "explain", "Explain a prediction as TorchServe's REST API does"),
    ):
        handler = NativePredict(gateway, surface=_NAME, explain=name == "explain", may_be_empty=True)
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
            predicts=name == "predict",
            tags=[_NAME],
            responses={**_ANSWER, **error_responses(TORCHSERVE_ERRORS, *PREDICTION_ERRORS)},
            openapi_extra=_BODY,
        )
    _add_other_paths(app, *handlers)
    add_workflows(app, gateway, _BODY, _ANSWER)

    @app.get(
        "/ping",
        tags=[_NAME],
        summary="Can it serve? In TorchServe's words",
        responses={500: {"model": Ping, "description": "It cannot; `/readyz` says why."}},
    )
    async def ping(response: Response) -> Ping:
        if await gateway().readiness.trouble() is None:
            return Ping(status="Healthy")
        response.status_code = 500
        return Ping(status="Unhealthy")

    add_description(app, gateway)
    add_management(app, gateway)


class _Read:
    """ASGI app that reads model, version and what stands behind them from a request before it is served."""

    def __init__(self, predict: ASGIApp, read: Callable[[Scope], Mapping[str, str]]) -> None:
        self._predict = predict
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_params"] = self._read(scope)
        await self._predict(scope, receive, send)


def _add_other_paths(app: FastPathApp, predict: ASGIApp, explain: ASGIApp) -> None:
    routes = app.router.routes
    for path, handler in (("/predictions", predict), ("/explanations", explain)):
        routes.append(Route(path + "/{rest:path}", _Read(handler, _from_path), methods=_METHODS))
    routes += [Route("/models/{model}/invoke" + end, predict, methods=_METHODS) for end in ("", "/")]
    routes.append(Route("/invocations", _Read(predict, _from_query), methods=_METHODS))

    async def api_description(_: Request) -> Response:
        return JSONResponse(app.openapi())

    routes.append(Route("/", api_description, methods=["OPTIONS"]))
    routes.append(Route("/api-description", api_description, methods=["GET", "OPTIONS"]))


def _from_path(scope: Scope) -> dict[str, str]:
    """Return what `/predictions/{model}[/{version}[/…]][/]` names."""
    model, _, behind = scope["path"].split("/", 2)[2].rstrip("/").partition("/")
    if not model:
        raise HTTPException(404)
    selector, _, url_path = behind.partition("/")
    return {"model": model, **({"selector": selector} if behind else {}), "url_path": url_path}


def _from_query(scope: Scope) -> dict[str, str]:
    names = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100).get("model_name", [])
    if not names:
        raise InvalidRequest("the query parameter model_name is missing: POST /invocations?model_name=MODEL")
    return {"model": names[-1]}


def _add_admin_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    add_management(app, gateway)
    add_workflow_management(app)


TORCHSERVE: Final = Surface(
    name=_NAME,
    tag=_NAME,
    about="TorchServe's inference API.",
    segments=("api-description", "explanations", "invocations", "ping", "predictions", "wfpredict", "workflows"),
    error_form=TORCHSERVE_ERRORS,
    add_routes=_add_routes,
    add_admin_routes=_add_admin_routes,
    services=(RpcService(SERVICE, inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server, TorchServeService),),
    refused_rpcs=(management_rpcs,),
)
