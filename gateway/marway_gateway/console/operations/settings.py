"""The page of settings in force, and of who may call."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from marway_gateway.admin.settings import access_of, settings_of
from marway_gateway.console.frame import console_router, render
from marway_gateway.gateway import CurrentGateway

__all__ = ["settings_page"]


def settings_page(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/settings")
    async def settings(request: Request, contains: str = "", given: bool = False) -> Response:
        gateway = current()
        known = settings_of(gateway.settings)
        wanted = contains.strip().lower()
        shown = [
            each
            for each in known
            if (not given or each.given) and (wanted in each.name or wanted in each.meaning.lower())
        ]
        return render(
            request,
            "settings.html",
            access=access_of(gateway),
            settings=shown,
            known=len(known),
            contains=contains,
            given=given,
            processes=gateway.settings.processes,
        )

    return router
