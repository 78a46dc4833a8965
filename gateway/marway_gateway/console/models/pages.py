"""The pages of all models and of one."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from marway_gateway.console.frame import console_router, render
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.surfaces.catalogue import page_of_models

__all__ = ["models_page", "models_router"]

_PAGE_MODELS: Final = 50
"""Models on a page: each costs a look into the registry's cache."""


def models_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/models")
    async def models(request: Request, after: str = "") -> Response:
        return await models_page(request, current(), after=after)

    return router


async def models_page(request: Request, gateway: Gateway, *, after: str = "") -> Response:
    """Return the page of all models, which is at `/` as well.

    Args:
        request: What it answers.
        gateway: Whose models.
        after: The name after which they begin.
    """
    reader = gateway.reader
    page = await reader.call(page_of_models, reader.registry, _PAGE_MODELS, after)
    return render(request, "models.html", page=page)
