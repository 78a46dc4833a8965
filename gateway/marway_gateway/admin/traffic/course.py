"""Which labels are divided or copied now, and how the evidence of a rollout came about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from marway import errors
from marway.errors import InvalidRecord, ModelNotFound
from marway.registry import Registry
from marway.registry.keys import ROLLOUTS
from marway.traffic import ShadowRule
from marway.wire.rollouts import EvidencePoint
from marway_gateway.admin.traffic.views import RolloutView
from marway_gateway.gateway import CurrentGateway
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.openapi import problems

__all__ = ["DividedView", "RolloutCourseView", "course_of", "divided_labels", "divided_router"]

_DIVIDED: Final[JsonDict] = {
    "model": "intent",
    "label": "PROD",
    "rollout": "01JD0Z6Y8QTR4P3N2M1K0J9H8G",
    "status": "running",
    "reason": None,
    "base": "1.0",
    "candidate": "1.1",
    "percent": 5.0,
    "step": 1,
    "steps": [1, 5, 25, 100],
    "began": "2026-11-30T12:00:00Z",
    "by": "ana@laptop",
    "shadow": [{"version": "1.1", "percent": 100.0}],
}


class DividedView(JsonModel):
    """A label whose requests are divided between versions, or copied to some, now."""

    model_config = ConfigDict(**examples(_DIVIDED))

    model: str
    label: str
    rollout: str | None = Field(description="Its id; null where there are shadow copies alone.")
    status: Literal["running", "paused"]
    reason: str | None = Field(description="Why it is paused.")
    base: str | None
    candidate: str | None
    percent: float = Field(description="Of the label's requests, in how many of a hundred the candidate answers.")
    step: int
    steps: tuple[float, ...]
    began: datetime
    by: str
    shadow: tuple[ShadowRule, ...]


class RolloutCourseView(JsonModel):
    """How the guards of a rollout stood at one time after the other: estimate, bound and evidence of each."""

    model_config = ConfigDict(
        **examples(
            {
                "model": "intent",
                "label": "PROD",
                "rollout": "01JD0Z6Y8QTR4P3N2M1K0J9H8G",
                "points": [
                    {
                        "at": "2026-11-30T12:00:10Z",
                        "step": 0,
                        "percent": 1.0,
                        "guards": {"errors": [0.001, 0.02, 0.0]},
                    }
                ],
            }
        )
    )

    model: str
    label: str
    rollout: str
    points: tuple[EvidencePoint, ...]


def divided_router(current: CurrentGateway) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["rollouts"])

    @router.get(
        "/rollouts",
        summary="List the labels that are divided or copied now",
        responses=problems(errors.RegistryUnavailable),
    )
    async def list_divided() -> list[DividedView]:
        """Rollouts that run or are paused, and shadow copies, of all models. One that ended is at its label."""
        reader = current().reader
        return await reader.call(divided_labels, reader.registry)

    return router


def divided_labels(registry: Registry) -> list[DividedView]:
    """Return the labels that are divided or copied, by model. Blocks: it reads models that ever had a rollout."""
    found = []
    for model in registry.store.children(ROLLOUTS):
        try:
            state = registry.state(model)
        except (InvalidRecord, ModelNotFound):
            continue  # resolving it says so; of a model that was deleted gc takes these later
        for label, traffic in state.traffic.items():
            facts = {name: getattr(traffic, name) for name in DividedView.model_fields if hasattr(traffic, name)}
            base = traffic.base or state.labels.get(label)
            found.append(DividedView(**{**facts, "model": model, "label": label, "base": base}))
    return sorted(found, key=lambda each: (each.model, each.label))


def course_of(registry: Registry, rollout: RolloutView, seen: Sequence[EvidencePoint]) -> RolloutCourseView:
    """Return how evidence came about: what stored reports tell, and what this process saw. Blocks."""
    points = {point.at: point for point in seen}
    first = min(points, default=None)
    for move in rollout.changes:
        if first is not None and move.at > first and seen:
            break  # it was watched here from then on
        report = registry.report(rollout.model, rollout.rollout, move.op_id)
        if report is None:
            continue
        points.update((point.at, point) for point in report.course)
        points[report.at] = EvidencePoint.of(report.at, report.step, report.percent, report.evidence)
    return RolloutCourseView(
        model=rollout.model,
        label=rollout.label,
        rollout=rollout.rollout,
        points=tuple(points[at] for at in sorted(points)),
    )
