"""The admin HTTP app, on a port of its own: what changes models and steers pods."""

from __future__ import annotations

from fastapi import FastAPI

from marway_gateway.admin.labels import labels_router
from marway_gateway.admin.pods import pods_router
from marway_gateway.admin.versions import versions_router
from marway_gateway.app import new_app
from marway_gateway.gateway import Gateway
from marway_gateway.pages import ABOUT_ADMIN
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.catalogue import catalogue_router
from marway_gateway.surfaces.registered import SURFACES
from marway_http.hosts import HostGuard

__all__ = ["create_admin_app"]


def create_admin_app(settings: GatewaySettings, *, gateway: Gateway | None = None) -> FastAPI:
    """Return the admin app.

    Args:
        settings: All of them.
        gateway: What serves; without it the app can be asked for nothing but its document.
    """
    app, current = new_app(
        about=ABOUT_ADMIN,
        gateway=gateway,
        token_file=settings.admin_tokens_file,
        guard=HostGuard(
            settings.admin_allowed_hosts,
            bound=settings.admin_host,
            setting="admin_allowed_hosts (MARWAY_GATEWAY_ADMIN_ALLOWED_HOSTS)",
        ),
    )
    for router in (catalogue_router, labels_router, versions_router, pods_router):
        app.include_router(router(current))
    for surface in SURFACES:
        surface.add_admin_routes(app, current)
    return app
