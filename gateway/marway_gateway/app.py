"""The public HTTP app: predict routes, models, health, metrics and documentation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path as FilePath
from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match

from marway import __version__, errors
from marway.errors import InvalidRequest, clip
from marway.wire.problems import Problem
from marway_gateway.access.authentication import check_request
from marway_gateway.access.origins import Cors, answer_preflight, check_admin_request
from marway_gateway.addresses import bracketed, is_loopback
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.http.error_bodies import error_body, surface_of
from marway_gateway.http.requests import Check, FastPathApp, request_info
from marway_gateway.openapi import describe, problems
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.catalogue import catalogue_router
from marway_gateway.surfaces.feedback import add_feedback_route
from marway_gateway.surfaces.later_answers import performing
from marway_gateway.surfaces.registered import SURFACES
from marway_http.hosts import HostGuard
from marway_http.pages.about import About, Link
from marway_http.pages.routes import Health, HomePage, add_process_routes, expose, with_head

__all__ = ["HEALTH_LINKS", "LINKS", "console_links", "create_app", "new_app"]

LINKS: Final = (
    Link(href="docs", title="Every route, to read and to try; openapi.json says the same to programs"),
    Link(href="models", title="The models, their versions and labels"),
)
HEALTH_LINKS: Final = (
    Link(href="healthz", title="Does the process run?"),
    Link(href="metrics", title="Metrics for Prometheus"),
)
_ABOUT: Final = About(
    name="Marway gateway",
    version=__version__,
    description="Serves models: each answers at /predict/MODEL, and as TorchServe, KServe, Triton and TensorFlow "
    "Serving answer, over REST and gRPC; the console is on the admin port. docs/http.md of Marway says more.",
    links=(*LINKS, Link(href="readyz", title="Can it serve?"), *HEALTH_LINKS),
    example="curl -d 'wake me at seven' http://THIS-HOST/predict/intent",
)
_TAGS: Final[list[dict[str, Any]]] = [
    {"name": "models", "description": "Which models, versions and labels there are."},
    {"name": "feedback", "description": "What predictions should have been, or how good they were."},
    {"name": "labels", "description": "Which version a label means."},
    {"name": "versions", "description": "Load, unload and delete versions."},
    {"name": "serving", "description": "How a model is served."},
    {"name": "pods", "description": "Who serves."},
    {"name": "observations", "description": "What was kept of predictions."},
    {"name": "events", "description": "What happened to models."},
    {"name": "settings", "description": "What this gateway was told, and who may call it."},
    {"name": "health", "description": "How the process does. No token is needed."},
]
"""What the document says of each group of routes that is no surface's, in their order."""


def create_app(settings: GatewaySettings, *, gateway: Gateway | None = None) -> FastAPI:
    """Return the public app.

    Args:
        settings: All of them.
        gateway: What serves; without it the app can be asked for nothing but its document.
    """
    app, current = new_app(
        about=_ABOUT,
        gateway=gateway,
        token_file=settings.predict_tokens_file,
        cors=Cors(settings.cors_origins) if settings.cors_origins else None,
        more_links=partial(console_links, settings),
    )
    app.include_router(catalogue_router(current))
    for surface in SURFACES:
        surface.add_routes(app, current)
    add_feedback_route(app, current)
    if gateway is not None:
        gateway.later.begin(performing(current))

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


def console_links(settings: GatewaySettings, request: Request) -> tuple[Link, ...]:
    """Return where the console is, for a page of the public port; nothing where the asker may not get there.

    That is known of who asks this port itself, under an address that the admin port has as well. What a proxy's clients
    can reach is not known here.
    """
    asked, server = request.url, request.scope.get("server")
    host = asked.hostname or ""
    known = is_loopback(host) or host == settings.admin_host
    if not (settings.console and settings.admin_port and known and server and asked.port == server[1]):
        return ()
    at = f"{asked.scheme}://{bracketed(host)}:{settings.admin_port}/"
    return (Link(href=at, title="The console: models, releases, pods, requests, in a browser"),)


def new_app(
    *,
    about: About,
    gateway: Gateway | None,
    token_file: FilePath | None,
    guard: HostGuard | None = None,
    uploads: frozenset[str] = frozenset(),
    cors: Cors | None = None,
    home: HomePage | None = None,
    more_links: Callable[[Request], tuple[Link, ...]] | None = None,
) -> tuple[FastPathApp, CurrentGateway]:
    """Return an app with what the public and the admin port share, and a function that gives its gateway.

    Args:
        about: What the app says of itself.
        gateway: What serves; without it the app can be asked for nothing but its document.
        token_file: The file with the tokens that it wants, or None.
        guard: Says which hosts and origins may ask for what, on a port that takes only JSON; None lets everybody.
        uploads: Content types that such a port takes at `POST /models` as well.
        cors: Says which web pages may send what browsers ask for first; None leaves such questions to the routes.
        home: Answers `/` for people, of an app whose pages they sign in to; None has a plain page and no signing in.
        more_links: Gives what `/` names beside ``about``'s own.
    """

    @cache  # it is asked at each request
    def current() -> Gateway:
        assert gateway is not None
        return gateway

    checks: list[Check] = []
    if cors is not None:
        checks.append(partial(answer_preflight, cors))
    if guard is not None:
        checks.append(partial(check_admin_request, guard, uploads))
    if token_file is not None and gateway is not None:
        checks.append(partial(check_request, gateway.token_files[token_file], pages=home is not None))
    app = FastPathApp(
        telemetry=cache(lambda: current().telemetry),
        checks=checks,
        title=about.name,
        version=about.version,
        description=about.description,
        openapi_tags=[*({"name": each.tag, "description": each.about} for each in SURFACES if each.tag), *_TAGS],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the body of a predict request
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={HTTPException: _http_problem, RequestValidationError: _invalid},
    )
    app.openapi = describe(app, tokens=token_file is not None, guarded=guard is not None)  # type: ignore[method-assign]  # FastAPI's documented way to extend the document

    async def exposed(registry: CollectorRegistry) -> bytes:
        peers = current().peers
        return await (peers.exposed(registry) if peers is not None else expose(registry))

    add_process_routes(
        app, about, lambda: current().telemetry.metrics.registry, exposed=exposed, home=home, more_links=more_links
    )
    return app, current


async def _http_problem(request: Request, exc: Exception) -> Response:
    """Answer for the router: no such route, or not with this method."""
    assert isinstance(exc, HTTPException)
    info = request_info(request.scope)
    info.outcome = "client_error"
    method, path = request.method, clip(request.url.path, 200)
    headers, code, title, detail = exc.headers, "invalid_request", "Invalid request", str(exc.detail)
    if exc.status_code == 405:
        allowed = with_head(", ".join(_methods_of(request)))
        headers = {"Allow": allowed}
        code, title, detail = "method_not_allowed", "Method not allowed", f"{path} takes {allowed}, not {method}"
    elif exc.status_code == 404:
        code, title = "not_found", "Not found"
        detail = f"there is nothing at {method} {path}; /docs shows what there is"
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
    """Turn a parameter that FastAPI refused into our own error, which the app answers."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    where = " ".join(str(part) for part in first["loc"])
    raise InvalidRequest(f"{clip(where, 80)}: {clip(first['msg'], 200)}") from exc
