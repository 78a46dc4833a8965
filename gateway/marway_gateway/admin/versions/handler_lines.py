"""The admin route of what a version's handler printed, logged and raised, on all pods."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import Field

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.wire.pods import HandlerLine, HandlerLines
from marway_gateway.admin.parameters import Model
from marway_gateway.admin.views import AdminView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.json_models import examples
from marway_gateway.openapi import REFERENCE_ERRORS, problems
from marway_gateway.placement import Pod

__all__ = ["HandlerLogView", "handler_lines_router", "handler_log"]

VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["1.1", "PROD"])]
_WITHIN_S: Final = 5.0


class HandlerLineView(AdminView):
    """One line, and the pod that it was written on."""

    model_config = examples(
        {
            "pod": "pod-0",
            "at": "2026-03-04T11:34:10Z",
            "level": "error",
            "text": "the handler failed",
            "worker": 9001,
            "request_ids": ["4bf92f35"],
            "traceback": "Traceback (most recent call last):\n  ...\nKeyError: 'text'",
            "reason": None,
            "logger": "marway.worker",
        }
    )

    pod: str
    at: datetime
    level: str = Field(description="debug, info, warning, error or critical.")
    text: str
    worker: int = Field(description="Which of the version's workers, by its port.")
    request_ids: tuple[str, ...] = Field(description="Those that it was answering, as far as that is known.")
    traceback: str | None
    reason: str | None = Field(description="In one line, why the handler cannot be loaded.")
    logger: str | None

    @classmethod
    def of(cls, pod: str, line: HandlerLine) -> HandlerLineView:
        """Return the view of a line."""
        return cls(pod=pod, **{name: getattr(line, name) for name in HandlerLine.model_fields})


class HandlerLogView(AdminView):
    """What a version's handler wrote, oldest first."""

    model_config = examples({"model": "intent", "version": "1.1", "lines": [], "unanswered": {}})

    model: str
    version: str
    lines: tuple[HandlerLineView, ...]
    unanswered: Mapping[str, str] = Field(description="Pods that did not answer, and why.")


def handler_lines_router(current: CurrentGateway) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.get(
        "/models/{model}/versions/{version}/log",
        tags=["versions"],
        summary="What its handler printed, logged and raised, on all pods",
        responses=problems(*REFERENCE_ERRORS, MarwayError),
    )
    async def show_handler_log(
        model: Model,
        version: VersionOrLabel,
        request_id: Annotated[
            str | None,
            Query(alias="request", max_length=128, description="Only what was written while it was answered."),
        ] = None,
        lines: Annotated[int, Query(ge=1, le=1000, description="At most so many a pod, the newest.")] = 200,
    ) -> HandlerLogView:
        """As `marway logs` shows it on the pods' own machine; of some MB that each pod's handlers wrote last."""
        return await handler_log(current(), model, version, request_id=request_id, limit=lines)

    return router


async def handler_log(
    gateway: Gateway, model: str, version: str, *, request_id: str | None, limit: int
) -> HandlerLogView:
    """Ask all pods what a version's handler wrote; those that do not answer are named."""
    record = (await gateway.resolver.resolve(model, version)).record
    deadline = Deadline.after(_WITHIN_S)

    async def ask(pod: Pod) -> HandlerLines | MarwayError:
        try:
            return await gateway.pod_api.handler_lines(
                pod, record.name, record.version, request_id=request_id, limit=limit, deadline=deadline
            )
        except MarwayError as exc:
            return exc

    pods = [pod for pod in gateway.pods.pods if pod.status is not None]
    answers = dict(zip(pods, await asyncio.gather(*map(ask, pods)), strict=True))
    found = [
        HandlerLineView.of(pod.name, line)
        for pod, answer in answers.items()
        if isinstance(answer, HandlerLines)
        for line in answer.lines
    ]
    return HandlerLogView(
        model=record.name,
        version=record.version,
        lines=tuple(sorted(found, key=lambda each: each.at)),
        unanswered={pod.name: answer.message for pod, answer in answers.items() if isinstance(answer, MarwayError)},
    )
