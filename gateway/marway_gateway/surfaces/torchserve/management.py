"""TorchServe's management API, REST and gRPC, where it is not served: which `marway` verb does what was asked for.

Models come from the registry, and workers follow the load. The API's clients are told so in the form of error that
they know. `GET /models` and `GET /models/{model}` are Marway's own, and what a handler says of its model is asked of it
(`describe`). Where the setting `torchserve_management` is on, the admin port serves it
(`managing`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response

from marway.wire.problems import Problem
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.error_bodies import error_body
from marway_gateway.http.requests import FastPathApp, request_info
from marway_gateway.surfaces.grpc.call import refused_rpcs
from marway_gateway.surfaces.torchserve.describe import CustomizedDescription

__all__ = ["SERVICE", "add_description", "add_management", "management_rpcs"]

SERVICE: Final = "org.pytorch.serve.grpc.management.ManagementAPIsService"

_REGISTER: Final = (
    "models are registered by publishing them: `marway publish ARCHIVE`, then `marway release MODEL VERSION`; they are "
    "loaded when they are asked for, or by `marway load MODEL`"
)
_SCALE: Final = (
    "workers follow the load; `marway serving MODEL --set min_workers=N` and `--set max_workers=N` bound their number"
)
_DEFAULT: Final = "the version that is served by default is the one at PROD: `marway release MODEL VERSION` moves it"
_UNREGISTER: Final = (
    "`marway unload MODEL` takes a version from memory, `marway delete MODEL VERSION` deletes it for good"
)
_DESCRIBE: Final = (
    "`marway show MODEL`, `marway pods MODEL` and GET /models/MODEL/versions/VERSION describe a version; GET "
    "/models/MODEL/VERSION?customized=true of the public port has its handler describe it"
)
_LIST: Final = "`marway models` and GET /models list the models"

_ROUTES: Final = (
    # The methods that stand behind the message are what `Allow` names: Marway's own.
    (("POST", "DELETE", "PUT"), "/models", _REGISTER, "GET, HEAD"),
    (("PUT", "POST"), "/models/{model}", _SCALE, "GET, HEAD"),
    (("DELETE",), "/models/{model}", _UNREGISTER, "GET, HEAD"),
    (("GET",), "/models/{model}/{version}", _DESCRIBE, ""),
    (("PUT",), "/models/{model}/{version}", _SCALE, ""),
    (("DELETE",), "/models/{model}/{version}", _UNREGISTER, ""),
    (("PUT",), "/models/{model}/{version}/set-default", _DEFAULT, ""),
)
_RPCS: Final = {
    "DescribeModel": _DESCRIBE,
    "ListModels": _LIST,
    "RegisterModel": _REGISTER,
    "ScaleWorker": _SCALE,
    "SetDefault": _DEFAULT,
    "UnregisterModel": _UNREGISTER,
}
_NOT_HERE: Final = "TorchServe's management API is not served here: "
_SETTING: Final = "; the gateway's setting torchserve_management has the admin port serve that API"


def add_management(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the REST routes behind all others of an app."""
    for methods, path, message, allowed in _ROUTES:
        app.router.routes.append(Route(path, _refusing(message, allowed), methods=methods))


def add_description(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the route by which a handler describes its model, before those of `add_management`."""
    refuse = request_response(_refusing(_DESCRIBE, ""))
    described = CustomizedDescription(gateway, surface="torchserve", other=refuse)
    app.router.routes.append(Route("/models/{model}/{version}", described, methods=["GET"]))


def management_rpcs() -> grpc.GenericRpcHandler[Any, Any]:
    """Return the gRPC service, each of whose calls is refused."""
    exception = "org.pytorch.serve.http.MethodNotAllowedException"
    return refused_rpcs(
        SERVICE, {name: f"{_NOT_HERE}{message}{_SETTING}\n{exception}" for name, message in _RPCS.items()}
    )


def _refusing(message: str, allowed: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(request: Request) -> Response:
        info = request_info(request.scope)
        info.outcome, info.error = "client_error", "method_not_allowed"
        detail = f"{_NOT_HERE}{message}{_SETTING}"
        problem = Problem(title="Method not allowed", status=405, detail=detail, code="method_not_allowed")
        body, content_type = error_body("torchserve", problem)
        return Response(body, problem.status, headers={"allow": allowed}, media_type=content_type)

    return refuse
