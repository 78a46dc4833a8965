"""The management API over REST, on the admin port: TorchServe's paths, statuses, bodies and form of error."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from marway.deadline import Deadline
from marway.errors import InvalidRequest, MarwayError
from marway.wire.headers import REQUEST_TIMEOUT_MS
from marway_gateway.admin.parameters import caller_of, deadline_of
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp, request_info
from marway_gateway.surfaces.torchserve.managing.management import Done, Management
from marway_gateway.surfaces.torchserve.managing.parameters import Parameters
from marway_gateway.surfaces.torchserve.managing.refusals import Refused, refusal_of
from marway_gateway.surfaces.torchserve.managing.sources import received
from marway_http.pages.routes import with_head

__all__ = ["UPLOADS", "add_managing"]

UPLOADS: Final = frozenset({"application/octet-stream", "application/zip"})
"""Content types of an archive in a body; no web page can send them to another host without being let."""
_JSON_MAX: Final = 64 * 1024
_METHODS: Final = frozenset({"DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"})

_Act = Callable[[Management, Request], Awaitable[Any]]


def add_managing(app: FastPathApp, gateway: CurrentGateway) -> None:
    """Add the routes, with and without a slash at the end, behind those that are there."""

    @cache
    def management() -> Management:
        return Management(gateway())

    for path, methods in _ROUTES.items():
        for method, act in methods.items():
            endpoint = _answering(act, management)
            app.router.routes += [Route(path + end, endpoint, methods=[method]) for end in ("", "/")]
        refuse, others = _not_allowed(sorted(methods)), sorted(_METHODS - methods.keys())
        app.router.routes += [Route(path + end, refuse, methods=others) for end in ("", "/")]


def _answering(act: _Act, management: Callable[[], Management]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        info = request_info(request.scope)
        try:
            done = await act(management(), request)
        except MarwayError as exc:
            info.failed(exc)
            return _refusal(refusal_of(exc))
        except Refused as exc:
            info.outcome = "client_error" if exc.status < 500 else "unavailable"
            info.error = exc.kind
            return _refusal(exc)
        if isinstance(done, Done):
            return _document(done.status, {"status": done.words})
        return _document(200, done)

    return answer


def _not_allowed(methods: list[str]) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers a path's other methods, after those of all other routes."""
    allowed = with_head(", ".join(methods))

    async def refuse(request: Request) -> Response:
        info = request_info(request.scope)
        info.outcome, info.error = "client_error", "method_not_allowed"
        message = f"Requested method is not allowed, please refer to API document: the path takes {allowed}."
        return _refusal(Refused(405, "MethodNotAllowedException", message, headers={"allow": allowed}))

    return refuse


def _refusal(refused: Refused) -> Response:
    return _document(refused.status, refused.document, refused.headers)


def _document(status: int, document: Any, headers: dict[str, str] | None = None) -> Response:
    """Return an answer as TorchServe writes them: JSON to read, with an end of line."""
    body = json.dumps(document, indent=2) + "\n"
    return Response(
        body, status, headers={"cache-control": "no-store", **(headers or {})}, media_type="application/json"
    )


def _of_query(request: Request) -> Parameters:
    return Parameters(request.query_params)


def _deadline(management: Management, request: Request) -> Deadline | None:
    return deadline_of(request.headers.get(REQUEST_TIMEOUT_MS), management.settings)


async def _list(management: Management, request: Request) -> Any:
    return await management.list_models(_of_query(request))


async def _describe(management: Management, request: Request) -> Any:
    named = request.path_params
    return await management.describe(named["model"], named.get("version"), _of_query(request))


async def _register(management: Management, request: Request) -> Done:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    async with AsyncExitStack() as stack:
        upload: Path | None = None
        given = _of_query(request)
        if kind in UPLOADS:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-register-"))
            upload = Path(directory) / "archive.mar"
            limit = management.settings.torchserve_management_archive_bytes
            await received(request.stream(), upload, max_bytes=limit)
        elif kind:
            given = Parameters.of_json(await _json(request), request.query_params)
        return await management.register(
            given, caller_of(request), upload=upload, synchronous=True, deadline=_deadline(management, request)
        )


async def _json(request: Request) -> dict[str, Any]:
    """Return the parameters in a body.

    Raises:
        InvalidRequest: It is no JSON object, or too large to be one of parameters.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _JSON_MAX:
            raise InvalidRequest(f"a body of parameters has at most {_JSON_MAX} bytes")
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("the body is no JSON: give parameters in the query, or as a JSON object") from exc
    if not isinstance(document, dict):
        raise InvalidRequest("the body is no JSON object: give TorchServe's parameters by their names")
    return document


async def _scale(management: Management, request: Request) -> Done:
    named = request.path_params
    return await management.scale(
        named["model"],
        named.get("version"),
        _of_query(request),
        caller_of(request),
        deadline=_deadline(management, request),
    )


async def _set_default(management: Management, request: Request) -> Done:
    named = request.path_params
    return await management.set_default(
        named["model"],
        named["version"],
        _of_query(request),
        caller_of(request),
        deadline=_deadline(management, request),
    )


async def _unregister(management: Management, request: Request) -> Done:
    named = request.path_params
    return await management.unregister(
        named["model"],
        named.get("version"),
        _of_query(request),
        caller_of(request),
        deadline=_deadline(management, request),
    )


_ROUTES: Final[dict[str, dict[str, _Act]]] = {
    "/models": {"GET": _list, "POST": _register},
    "/models/{model}": {"GET": _describe, "PUT": _scale, "DELETE": _unregister},
    "/models/{model}/{version}": {"GET": _describe, "PUT": _scale, "DELETE": _unregister},
    "/models/{model}/{version}/set-default": {"PUT": _set_default},
}
