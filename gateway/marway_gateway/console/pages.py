"""The pages of the console, a line each, and how the admin app gets them.

A page is a module with a router, and a template below `console/templates`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from marway_gateway.console.frame import NavLink
from marway_gateway.console.live import live_router
from marway_gateway.console.login import add_login
from marway_gateway.console.models.figures import figures_router
from marway_gateway.console.models.pages import models_router
from marway_gateway.console.operations.events import events_page
from marway_gateway.console.operations.pods import pods_page
from marway_gateway.console.operations.rollouts import rollouts_page
from marway_gateway.console.operations.settings import settings_page
from marway_gateway.console.requests.pages import requests_router
from marway_gateway.console.statics import static_answer
from marway_gateway.console.trying.pages import try_router
from marway_gateway.console.trying.routes import add_try_routes
from marway_gateway.console.versions.pages import version_router
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp
from marway_http.pages.about import Link

__all__ = ["CONSOLE_LINK", "add_console", "console_home"]

_ROUTERS: Final[tuple[Callable[[CurrentGateway], APIRouter], ...]] = (
    models_router,
    figures_router,
    version_router,
    try_router,
    requests_router,
    pods_page,
    rollouts_page,
    events_page,
    settings_page,
    live_router,
    # a line a page
)
_NAV: Final[tuple[NavLink, ...]] = (
    NavLink("Models", "console/models"),
    NavLink("Pods", "console/pods"),
    NavLink("Rollouts", "console/rollouts"),
    NavLink("Requests", "console/requests"),
    NavLink("Events", "console/events"),
    NavLink("Settings", "console/settings"),
    # those that the frame leads to, in this order
)
CONSOLE_LINK: Final = Link(href="console/models", title="The console: models, pods, rollouts and requests, for people")
"""What the port says of it to programs."""


def add_console(app: FastPathApp, current: CurrentGateway) -> None:
    """Add all pages below `/console/`, what they are made of, and the login."""
    app.state.console_nav = _NAV
    app.router.routes.append(Route("/console/static/{name}", static_answer, methods=["GET"]))
    add_login(app, current)
    add_try_routes(app, current)
    for router in _ROUTERS:
        app.include_router(router(current))


async def console_home(_: Request) -> Response:
    """Answer `/` where a page is preferred: lead to the models, so that each page has one address."""
    return RedirectResponse("console/models", 303, headers={"Cache-Control": "no-store", "Vary": "Accept"})
