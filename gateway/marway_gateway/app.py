"""The public HTTP app: predict routes, models, health, metrics and documentation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Path, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match

from marway import errors
from marway.errors import InvalidRequest, clip
from marway.wire.about import About
from marway.wire.hosts import HostGuard
from marway.wire.openapi import ANSWERS, BODIES
from marway.wire.problems import Problem
from marway_gateway.access.authentication import TokenLayer
from marway_gateway.access.cors import Cors, Preflight
from marway_gateway.admin.guard import AdminGuard
from marway_gateway.gateway import Gateway, open_gateway
from marway_gateway.http.fast_path import FastPathApp
from marway_gateway.http.requests import RequestLayer, request_info
from marway_gateway.openapi import GroupId, Id, Timeout, add_served, describe, problems
from marway_gateway.pages import ABOUT_PUBLIC, TAGS, add_pages
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.catalogue import catalogue_router
from marway_gateway.surfaces.error_bodies import error_body, surface_of
from marway_gateway.surfaces.native import NativePredict
from marway_gateway.surfaces.open_inference.routes import add_open_inference
from marway_gateway.surfaces.torchserve.management import add_management
from marway_gateway.surfaces.torchserve.rest import add_torchserve
from marway_gateway.surfaces.trailing_slash import add_trailing_slash
from marway_gateway.surfaces.v1.routes import add_v1
from marway_http.head import HeadAsGet, with_head

__all__ = ["Health", "create_app", "new_app"]

Model = Annotated[
    str, Path(description="A model's name, which means its version at PROD, or a model id.", examples=["intent"])
]
VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["PROD", "1.0"])]

_ANY_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, of any content type: these are the usual ones. The fields of forms reach "
        "the handler under their names, anything else under `data`.",
        "content": BODIES,
    }
}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The model's own answer: its body, status and content type. A version that streams answers in "
        "pieces as they come: with `Accept: text/event-stream` each is an event, and the last one is `end` or `error`.",
        "content": ANSWERS,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in (
                ("X-Request-Id", "The caller's, or made here."),
                ("X-Model-Name", "The model that answered."),
                ("X-Model-Version", "The version that answered."),
                ("X-Model-Id", "The same version's id."),
                ("Server-Timing", "Milliseconds of resolving, of the pod and in all; what the cache did."),
                ("X-Cache", "`hit`, `miss` or `bypass`, for models whose answers may be given again."),
            )
        },
    }
}
_PREDICT_PROBLEMS: Final = problems(
    *(errors.InvalidReference, errors.InvalidRequest, errors.ModelNotFound, errors.VersionNotFound),
    *(errors.LabelNotFound, errors.BodyTooLarge, errors.UnsupportedMedia),
    *(errors.Overloaded, errors.ModelError, errors.MarwayError),
    *(errors.NoPodAvailable, errors.RegistryUnavailable, errors.DeadlineExceeded),
)


class Health(BaseModel):
    """All is well; anything else is answered with a problem."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


def create_app(settings: GatewaySettings, *, gateway: Gateway | None = None) -> FastAPI:
    """Return the public app.

    Args:
        settings: All of them.
        gateway: Parts that are open already and stay so; without them the app opens its own while it runs.
    """
    app, current = new_app(
        settings,
        about=ABOUT_PUBLIC,
        gateway=gateway,
        token_file=settings.predict_tokens_file,
        cors=Cors(settings.cors_origins) if settings.cors_origins else None,
    )
    app.include_router(catalogue_router(current))
    _add_predict(app, current)
    add_torchserve(app, current)
    add_open_inference(app, current)
    add_v1(app, current)
    add_trailing_slash(app, "/v1", "/v2")
    add_management(app)

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Can it serve?",
        responses=problems(errors.NoPodAvailable, errors.RegistryUnavailable),
    )
    async def readyz() -> Health:
        """Ready means that the registry was read and at least one pod is ready."""
        trouble = await current().readiness.trouble()
        if trouble is not None:
            raise trouble
        return Health()

    return app


def new_app(
    settings: GatewaySettings,
    *,
    about: About,
    gateway: Gateway | None,
    token_file: FilePath | None,
    guard: HostGuard | None = None,
    cors: Cors | None = None,
) -> tuple[FastPathApp, Callable[[], Gateway]]:
    """Return an app with what the public and the admin port share, and a function that gives its gateway.

    Args:
        settings: All of them.
        about: What the app says of itself.
        gateway: Parts that are open already; None opens its own while the app runs.
        token_file: The file with the tokens that it wants, or None.
        guard: Says which hosts and origins may ask for what, on a port that takes only JSON; None lets everybody.
        cors: Says which web pages may send what browsers ask for first; None leaves such questions to the routes.
    """
    opened: list[Gateway] = [gateway] if gateway is not None else []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if gateway is not None:
            yield
            return
        async with open_gateway(settings) as own:
            opened.append(own)
            try:
                yield
            finally:
                opened.clear()

    def current() -> Gateway:
        return opened[0]

    app = FastPathApp(
        title=about.name,
        version=about.version,
        description=about.description,
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the body of a predict request
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={HTTPException: _http_problem, RequestValidationError: _invalid},
    )
    app.openapi = describe(app, tokens=token_file is not None, guarded=guard is not None)  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    app.add_middleware(HeadAsGet)
    if token_file is not None:
        app.fast_layer(TokenLayer, tokens=lambda: current().token_files[token_file])
    if guard is not None:
        app.fast_layer(AdminGuard, guard=guard)
    if cors is not None:
        app.add_middleware(Preflight, cors=cors)
    app.fast_layer(RequestLayer, telemetry=lambda: current().telemetry)

    add_pages(app, about)

    @app.get("/healthz", tags=["health"], summary="Does the process run?")
    async def healthz() -> Health:
        return Health()

    @app.get(
        "/metrics",
        tags=["health"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
        },
    )
    async def metrics() -> Response:
        return Response(generate_latest(current().telemetry.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app, current


def _add_predict(app: FastPathApp, current: Callable[[], Gateway]) -> None:
    # The functions below are documentation; `NativePredict` serves the routes.
    async def predict(
        model: Model,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError  # for FastAPI to describe: requests never get here

    async def predict_version(
        model: Model,
        selector: VersionOrLabel,
        x_request_timeout_ms: Timeout = None,
        x_request_id: Id = None,
        x_request_group_id: GroupId = None,
    ) -> None:
        raise NotImplementedError  # for FastAPI to describe: requests never get here

    add_served(
        app,
        NativePredict(current),
        (
            ("/predict/{model}", predict, "Predict with a model"),
            ("/predict/{model}/{selector}", predict_version, "Predict with a version or a label"),
        ),
        tags=["predict"],
        responses={**_ANSWER, **_PREDICT_PROBLEMS},
        openapi_extra=_ANY_BODY,
    )


async def _http_problem(request: Request, exc: Exception) -> Response:
    """Answer for the router: no such route, or not with this method."""
    assert isinstance(exc, HTTPException)
    info = request_info(request.scope)
    info.outcome = "client_error"
    method, path = request.method, clip(request.url.path, 200)
    headers = exc.headers
    if exc.status_code == 405:
        allowed = with_head(", ".join(_methods_of(request)))
        headers = {"Allow": allowed}
        code, title, detail = "method_not_allowed", "Method not allowed", f"{path} takes {allowed}, not {method}"
    elif exc.status_code == 404:
        code, title, detail = (
            "not_found",
            "Not found",
            f"there is nothing at {method} {path}; /docs shows what there is",
        )
    else:
        code, title, detail = "invalid_request", "Invalid request", str(exc.detail)
    info.error = code
    problem = Problem(title=title, status=exc.status_code, detail=detail, code=code, request_id=info.request_id)
    body, content_type = error_body(surface_of(request.url.path), problem)
    return Response(body, exc.status_code, headers=headers, media_type=content_type)


def _methods_of(request: Request) -> list[str]:
    """Return the methods that a path takes: a router's own 405 names those of the first route alone."""
    taken: set[str] = set()
    for route in request.app.router.routes:
        if route.matches(request.scope)[0] != Match.NONE:
            taken |= getattr(route, "methods", None) or set()
    return sorted(taken)


async def _invalid(_: Request, exc: Exception) -> Response:
    """Turn a parameter that FastAPI refused into our own error, which `RequestLayer` answers."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    where = " ".join(str(part) for part in first["loc"])
    raise InvalidRequest(f"{clip(where, 80)}: {clip(first['msg'], 200)}") from exc
