"""The admin HTTP app, on a port of its own: what changes models and steers pods."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI

from marway import __version__
from marway_gateway.admin.contract_routes import contracts_router
from marway_gateway.admin.kept.events import events_router
from marway_gateway.admin.kept.routes import kept_router
from marway_gateway.admin.labels import labels_router
from marway_gateway.admin.pods import pods_router
from marway_gateway.admin.protection import protection_router
from marway_gateway.admin.settings import settings_router
from marway_gateway.admin.traffic.course import divided_router
from marway_gateway.admin.traffic.rollouts import rollouts_router
from marway_gateway.admin.traffic.shadow import shadow_router
from marway_gateway.admin.versions.handler_lines import handler_lines_router
from marway_gateway.admin.versions.routes import versions_router
from marway_gateway.app import HEALTH_LINKS, LINKS, new_app
from marway_gateway.console.pages import CONSOLE_LINK, add_console, console_home
from marway_gateway.gateway import Gateway
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.catalogue import catalogue_router
from marway_gateway.surfaces.registered import SURFACES
from marway_gateway.surfaces.torchserve.managing.rest import UPLOADS, add_managing
from marway_http.hosts import HostGuard
from marway_http.pages.about import About, Link

__all__ = ["create_admin_app"]

_ABOUT: Final = About(
    name="Marway gateway, admin port",
    version=__version__,
    description="Moves labels, loads and unloads versions, and steers pods. The `marway` command speaks to it; "
    "docs/admin.md of Marway says more.",
    links=(*LINKS, Link(href="pods", title="The pods, and what each has"), *HEALTH_LINKS),
    example="marway pods --gateway http://THIS-HOST",
)


def create_admin_app(settings: GatewaySettings, *, gateway: Gateway | None = None) -> FastAPI:
    """Return the admin app.

    Args:
        settings: All of them.
        gateway: What serves; without it the app can be asked for nothing but its document.
    """
    about = _ABOUT.model_copy(update={"links": (CONSOLE_LINK, *_ABOUT.links)}) if settings.console else _ABOUT
    app, current = new_app(
        about=about,
        gateway=gateway,
        token_file=settings.admin_tokens_file,
        guard=HostGuard(
            settings.admin_allowed_hosts,
            bound=settings.admin_host,
            setting="admin_allowed_hosts (MARWAY_GATEWAY_ADMIN_ALLOWED_HOSTS)",
        ),
        uploads=UPLOADS if settings.torchserve_management else frozenset(),
        home=console_home if settings.console else None,
    )
    app.include_router(catalogue_router(current, versions_only=settings.torchserve_management))
    routers = (
        *(labels_router, protection_router, contracts_router, rollouts_router, shadow_router),
        *(divided_router, pods_router, versions_router, handler_lines_router, kept_router),
        *(events_router, settings_router),
    )
    for router in routers:
        app.include_router(router(current))
    if settings.torchserve_management:
        add_managing(app, current)  # before the routes that refuse it
    for surface in SURFACES:
        surface.add_admin_routes(app, current)
    if settings.console:
        add_console(app, current)
    return app
