"""The pages of one version, and of how it differs from another: what the admin routes say of both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from marway.errors import MarwayError
from marway.graphs import GRAPH_BACKEND, draw_graph
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.comparison import comparison_lines
from marway_gateway.admin.versions.reading import VersionReading
from marway_gateway.console.frame import console_router, render
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.surfaces.catalogue import version_detail
from marway_gateway.surfaces.servable import versions_of

__all__ = ["Part", "part_of", "version_router"]

_FILES_SHOWN: Final = 200
_EXAMPLES_SHOWN: Final = 20


class Part(NamedTuple):
    """A part of a page: what it shows, or why that could not be had, which takes no other part with it."""

    value: object
    trouble: str | None


async def part_of(wanted: Awaitable[object]) -> Part:
    """Return a part of a page."""
    try:
        return Part(await wanted, None)
    except MarwayError as exc:
        return Part(None, exc.message)


def version_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/models/{model}/versions/{version}")
    async def version_page(request: Request, model: str, version: str) -> Response:
        gateway = current()
        detail = await version_detail(gateway, model, version)
        reading = VersionReading(gateway, detail)
        files, examples, proofs, graph, versions = await asyncio.gather(
            part_of(reading.files(_FILES_SHOWN)),
            part_of(reading.examples(_EXAMPLES_SHOWN)),
            part_of(reading.proofs()),
            part_of(_drawing(gateway, detail)),
            part_of(versions_of(gateway, detail.name)),
        )
        return render(
            request,
            "version.html",
            detail=detail,
            serving=detail.serving.model_dump(mode="json", exclude_none=True),
            chosen=_chosen(detail.serving),
            files=files,
            examples=examples,
            proofs=proofs,
            graph=graph,
            others=[each for each in versions.value or () if each != detail.version],  # type: ignore[attr-defined]  # names
        )

    @router.get("/console/models/{model}/versions/{version}/differences")
    async def differences_page(request: Request, model: str, version: str, base: str) -> Response:
        gateway = current()
        reading = await VersionReading.find(gateway, model, version)
        other = (await gateway.resolver.resolve(model, base)).record
        found = await reading.differences(other)
        return render(
            request,
            "version_differences.html",
            model=reading.record.name,
            newer=reading.record.version,
            base=other.version,
            found=found,
            stored=comparison_lines(found.answers),
        )

    return router


def _chosen(serving: ServingSettings) -> set[str]:
    """Return the settings that are not as they are where nobody says anything."""
    usual = ServingSettings()
    return {name for name in ServingSettings.model_fields if getattr(serving, name) != getattr(usual, name)}


async def _drawing(gateway: Gateway, record: VersionRecord) -> str | None:
    """Return a graph's drawing; None for what is no graph."""
    if record.backend != GRAPH_BACKEND:
        return None
    return await gateway.reader.call(_draw, gateway.reader.registry, record)


def _draw(registry: Registry, record: VersionRecord) -> str:
    return draw_graph(registry.graph(record))
