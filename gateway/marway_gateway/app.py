"""The public HTTP app: predict routes, models, health, metrics and documentation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match

from marway import errors
from marway.errors import InvalidRequest, clip
from marway.wire.problems import Problem
from marway_gateway.access.admin_guard import AdminGuard
from marway_gateway.access.authentication import TokenLayer
from marway_gateway.access.cors import Cors, Preflight
from marway_gateway.gateway import CurrentGateway, Gateway, open_gateway
from marway_gateway.http.error_bodies import error_body, surface_of
from marway_gateway.http.fast_path import FastPathApp
from marway_gateway.http.requests import RequestLayer, request_info
from marway_gateway.openapi import describe, problems
from marway_gateway.pages import ABOUT_PUBLIC, TAGS
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.catalogue import catalogue_router
from marway_gateway.surfaces.registered import SURFACES
from marway_http.head import HeadAsGet, with_head
from marway_http.hosts import HostGuard
from marway_http.pages.about import About
from marway_http.pages.routes import Health, add_process_routes

__all__ = ["create_app", "new_app"]


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
    for surface in SURFACES:
        surface.add_routes(app, current)

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
) -> tuple[FastPathApp, CurrentGateway]:
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
        openapi_tags=[*({"name": each.tag, "description": each.about} for each in SURFACES if each.tag), *TAGS],
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

    add_process_routes(app, about, lambda: current().telemetry.metrics.registry)

    return app, current


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
