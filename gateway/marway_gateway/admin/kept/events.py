"""Admin route of events: what happened to models of late."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, ConfigDict

from marway import errors
from marway.errors import InvalidRequest, clip
from marway.records import utc_now
from marway.refs import check_model_id
from marway.text import did_you_mean
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.json_models import examples
from marway_gateway.openapi import problems
from marway_observations.events.event import TYPES, Event, is_type

__all__ = ["EventView", "events_router", "recent_events"]

_SPAN_DEFAULT: Final = timedelta(days=7)
_SPAN_MAX: Final = timedelta(days=92)
Of = Annotated[str | None, Query(alias="model", description="Only events of this model.", examples=["intent"])]
Types = Annotated[
    list[str] | None,
    Query(alias="type", max_length=50, description="Only these types; `*` at the end stands for all that begin so."),
]
Since = Annotated[AwareDatetime | None, Query(description="The oldest time; seven days before `until` by default.")]
Until = Annotated[AwareDatetime | None, Query(description="The newest time; now by default.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many, the newest first.")]


class EventView(Event):
    """An event, as webhooks are sent it (CloudEvents 1.0)."""

    model_config = ConfigDict(
        **examples(
            {
                "specversion": "1.0",
                "id": "intent-7",
                "source": "/marway/registries/01JD0Z6Y8Q6V5T4S3R2P1N0M9K",
                "type": "dev.marway.model.released",
                "subject": "intent",
                "time": "2026-11-30T12:00:00Z",
                "datacontenttype": "application/json",
                "data": {"model": "intent", "version": "1.1", "label": "PROD", "previous_version": "1.0"},
            }
        )
    )


def events_router(current: CurrentGateway) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["events"])

    @router.get(
        "/events",
        summary="List what happened to models, the newest first",
        responses=problems(
            errors.InvalidRequest, errors.InvalidReference, errors.InvalidRecord, errors.RegistryUnavailable
        ),
    )
    async def list_events(
        model: Of = None, types: Types = None, since: Since = None, until: Until = None, limit: Limit = 100
    ) -> list[EventView]:
        """`marway events` lists the same."""
        found = await recent_events(current(), model, types or (), since=since, until=until, limit=limit)
        return [EventView.model_validate(each.model_dump()) for each in found]

    return router


async def recent_events(
    gateway: Gateway,
    model: str | None,
    types: list[str] | tuple[str, ...],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int,
) -> list[Event]:
    """Return events, the newest first.

    Args:
        gateway: Of whose registry.
        model: Only events of this model.
        types: Only these.
        since: The oldest time; None is seven days before ``until``.
        until: The newest; None is now.
        limit: At most so many.

    Raises:
        InvalidRequest: A type or a time is none.
        InvalidReference: It is no model.
        InvalidRecord, RegistryUnavailable: They cannot be read.
    """
    for each in types:
        if not any(is_type(known, each) for known in TYPES):
            raise InvalidRequest(
                f"type: {clip(each, 80)!r} is the type of no event: they are {', '.join(TYPES)}"
                f"{did_you_mean(clip(each, 80), TYPES)}"
            )
    until = until or utc_now()
    since = since or until - _SPAN_DEFAULT
    if not timedelta(0) <= until - since <= _SPAN_MAX:
        raise InvalidRequest(f"since and until: give times one after the other, at most {_SPAN_MAX.days} days apart")
    if model is not None:
        check_model_id(model)
    return await gateway.reader.call(
        gateway.events.newest, since=since, until=until, model=model, types=types, limit=limit
    )
