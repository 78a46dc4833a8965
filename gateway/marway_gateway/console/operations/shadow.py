"""The page of shadow copies: what they told of a version, and how to start and stop them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from marway.errors import RolloutNotFound
from marway_gateway.admin.traffic.shadow import shadow_report
from marway_gateway.console.frame import console_router, render
from marway_gateway.console.operations.rollouts import label_of
from marway_gateway.gateway import CurrentGateway

__all__ = ["shadow_page"]


def shadow_page(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/shadow/{model}/{label}")
    async def shadow(request: Request, model: str, label: str) -> Response:
        gateway = current()
        standing = await gateway.reader.call(label_of, gateway.reader.registry, model, label)
        try:
            report = await shadow_report(gateway, standing.model, label)
        except RolloutNotFound:
            report = None
        return render(request, "shadow.html", standing=standing, report=report)

    return router
