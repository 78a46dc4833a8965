"""TorchServe's workflows: `/wfpredict/{workflow}` asks a graph, and what managed them is told which verb does that.

`marway graph import FILE.war` makes a workflow a graph. As TorchServe has it, a name that is no workflow's is not
found, a model's neither: that one is asked by `/predictions/{model}`. A graph has versions and labels, so the path may
say one; TorchServe takes what stands there for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from marway.errors import ModelNotFound, NotFound
from marway.graphs import GRAPH_BACKEND
from marway.wire.headers import NOTHING
from marway.wire.problems import Problem
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.error_bodies import error_body
from marway_gateway.http.requests import FastPathApp, request_info, send_whole
from marway_gateway.openapi import PREDICTION_ERRORS, add_served, error_responses
from marway_gateway.surfaces.answers import stream_answer
from marway_gateway.surfaces.http_call import http_call
from marway_gateway.surfaces.torchserve.errors import TORCHSERVE_ERRORS
from marway_http.channel import CHANNEL, Channel

__all__ = ["WorkflowNotFound", "add_workflow_management", "add_workflows"]

_NAME: Final = "torchserve"
_METHODS: Final = ("POST", "PUT")
_NOT_HERE: Final = "TorchServe's workflow management API is not served here: "
_REGISTER: Final = "`marway graph import FILE.war --model-store DIR --label PROD` makes a workflow a graph"
_LIST: Final = "`marway models` and GET /models list graphs with the models, `marway graph show GRAPH` describes one"
_UNREGISTER: Final = "`marway delete GRAPH VERSION` deletes a version of a graph, whose models stay"
_MANAGEMENT: Final = (
    (("POST",), "/workflows", _REGISTER),
    (("GET",), "/workflows", _LIST),
    (("GET",), "/workflows/{workflow}", _LIST),
    (("DELETE",), "/workflows/{workflow}", _UNREGISTER),
)


class WorkflowNotFound(NotFound, code="workflow_not_found"):
    """There is no graph of that name."""


class WorkflowPredict:
    """ASGI app for `/wfpredict/{model}` and `/wfpredict/{model}/{selector}`.

    Args:
        gateway: Gives the gateway, which exists only while the app runs.
    """

    def __init__(self, gateway: CurrentGateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, info = self._gateway(), request_info(scope)
        channel: Channel = scope[CHANNEL]
        gateway.telemetry.predicting(info, _NAME)
        call = http_call(
            scope,
            receive,
            gateway.settings,
            more_headers={NOTHING: "1"},
            buffered_bytes=gateway.settings.max_body_bytes,
            may_be_empty=True,
        )
        try:
            with gateway.predictor.scope(call, channel) as cancel_scope:
                try:
                    record = (await gateway.predictor.resolve(call)).record
                except NotFound as exc:
                    known = "" if not isinstance(exc, ModelNotFound) else f"; {_REGISTER}"
                    raise WorkflowNotFound(f"{exc.message}{known}", model=exc.model, version=exc.version) from exc
                if record.backend != GRAPH_BACKEND:
                    raise WorkflowNotFound(
                        f"{record.name} is a model and no workflow: POST /predictions/{record.name}", model=record.name
                    )
                answer = await gateway.predictor.predict(call)
                data = answer.reply.data
                if data is None:
                    await stream_answer(answer, cancel_scope, send)
                    return
        finally:
            info.request_bytes = call.body.size
        await send_whole(channel, info, answer.reply.status, answer.reply.header_block, data)


def add_workflows(
    app: FastPathApp, gateway: CurrentGateway, body: dict[str, Any], answer: dict[int | str, dict[str, Any]]
) -> None:
    """Add the routes that ask workflows; ``body`` and ``answer`` are what the OpenAPI document says of both."""
    predict = WorkflowPredict(gateway)
    summary = "Ask a workflow as TorchServe's REST API does"
    add_served(
        app,
        predict,
        (
            ("/wfpredict/{model}", "torchserve_workflow", summary),
            ("/wfpredict/{model}/{selector}", "torchserve_workflow_version", summary),
        ),
        methods=_METHODS,
        headers={},
        tags=[_NAME],
        responses={**answer, **error_responses(TORCHSERVE_ERRORS, *PREDICTION_ERRORS)},
        openapi_extra=body,
    )
    app.router.routes.append(Route("/wfpredict/{model}", predict, methods=["GET"]))


def add_workflow_management(app: FastPathApp) -> None:
    """Add the routes that managed workflows, each of which says which verb does what was asked for."""
    for methods, path, message in _MANAGEMENT:
        app.router.routes.append(Route(path, _refusing(message), methods=methods))


def _refusing(message: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(request: Request) -> Response:
        info = request_info(request.scope)
        info.outcome, info.error = "client_error", "method_not_allowed"
        problem = Problem(
            title="Method not allowed", status=405, detail=f"{_NOT_HERE}{message}", code="method_not_allowed"
        )
        body, content_type = error_body(_NAME, problem)
        return Response(body, problem.status, headers={"allow": ""}, media_type=content_type)

    return refuse
