"""The page of events: what happened to models, live."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from marway.records import utc_now
from marway_gateway.admin.kept.events import recent_events
from marway_gateway.console.frame import console_router, render
from marway_gateway.gateway import CurrentGateway
from marway_observations.events.event import TYPES

__all__ = ["events_page"]

_SHOWN: Final = 100
_DAYS: Final = (1, 7, 30, 90)
_KINDS: Final[Mapping[str, str]] = {
    "released": "good",
    "promoted": "good",
    "recovered": "good",
    "given": "good",
    "rolled_back": "bad",
    "quality_below_minimum": "bad",
    "deleted": "warn",
    "drifted": "warn",
    "paused": "warn",
    "aborted": "warn",
    "asked": "warn",
}


def events_page(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/events")
    async def events(
        request: Request,
        model: Annotated[str, Query(max_length=128)] = "",
        types: Annotated[str, Query(alias="type", max_length=128)] = "",
        days: int = 7,
    ) -> Response:
        gateway = current()
        days = min(max(1, days), _DAYS[-1])
        found = await recent_events(
            gateway,
            model.strip() or None,
            [types] if types else [],
            since=utc_now() - timedelta(days=days),
            limit=_SHOWN + 1,
        )
        return render(
            request,
            "events.html",
            events=found[:_SHOWN],
            more=len(found) > _SHOWN,
            model=model,
            type=types,
            days=days,
            choices=_DAYS,
            types=[("dev.marway.model.*", "all of models"), ("dev.marway.rollout.*", "all of rollouts")]
            + [(each, _name(each)) for each in TYPES],
            name=_name,
            kind=lambda each: _KINDS.get(each.type.rpartition(".")[2], ""),
            facts=_facts,
            duties=gateway.settings.duties,
        )

    return router


def _name(kind: str) -> str:
    """Return an event's type as people say it."""
    return kind.removeprefix("dev.marway.").replace("model.", "").replace(".", " ").replace("_", " ")


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what an event says beside its model, in words."""
    return [
        (name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value))
        for name, value in data.items()
        if name != "model" and value not in (None, False, [], "")
    ]
