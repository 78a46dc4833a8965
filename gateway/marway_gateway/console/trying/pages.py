"""The page on which a version, or a label's, is tried."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from marway.errors import MarwayError
from marway_gateway.admin.versions.reading import VersionReading
from marway_gateway.console.frame import console_router, render
from marway_gateway.console.trying.forms import form_of
from marway_gateway.gateway import CurrentGateway
from marway_gateway.surfaces.catalogue import model_summary, version_detail

__all__ = ["try_router"]

_EXAMPLES_SHOWN: Final = 20


def try_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/models/{model}/try/{selector}")
    async def try_page(request: Request, model: str, selector: str) -> Response:
        gateway = current()
        detail = await version_detail(gateway, model, selector)
        summary = await gateway.reader.call(model_summary, gateway.reader.registry, detail.name)
        trouble = examples = None
        try:
            examples = await VersionReading(gateway, detail).examples(_EXAMPLES_SHOWN)
        except MarwayError as exc:  # it can be tried without them
            trouble = exc.message
        form = form_of(detail, examples, streams=bool(detail.serving.streaming))
        return render(
            request,
            "try.html",
            detail=detail,
            selector=selector,
            selectors=[*summary.labels, *summary.versions],
            form=form,
            examples=[each.model_dump(mode="json") for each in form.examples],
            trouble=trouble,
        )

    return router
