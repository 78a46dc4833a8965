"""The pages of rollouts: those that run, how one stands, with its evidence over time, and what shadow copies told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fastapi import APIRouter
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from marway.errors import RolloutNotFound
from marway.refs import check_label, check_model_id
from marway.registry import Registry
from marway.wire.rollouts import GUARD_LIMITS, EvidencePoint, GuardEvidence
from marway_gateway.admin.traffic.course import divided_labels
from marway_gateway.admin.traffic.rollouts import rollout_course
from marway_gateway.admin.traffic.shadow import shadow_report
from marway_gateway.console.frame import console_router, render
from marway_gateway.console.plots import DURATION, PERCENT, Axis, Line, Point, line_plot
from marway_gateway.gateway import CurrentGateway

__all__ = ["rollouts_page"]

_EVIDENCE: Final = Axis("evidence", lambda value: f"{value:.3g}")
_CEILING: Final = 5.0
"""A bound falls from 100 % to its limit of some: what is above so many times the limit is drawn at that."""
_ABOUT: Final = {
    "errors": "Requests that failed, whatever the reason but that there was no room.",
    "latency": "Requests that were slower than most of the base's: of its slowest half, and of its slowest hundredth.",
    "finite": "Answers with NaN or an infinity.",
    "shape": "Answers with other fields or types than the base's, to the same request.",
    "disagreement": "Answers that decide otherwise than the base's, to the same request.",
    "quality": "What feedback says of the answers, beside the base's.",
    "memory": "Memory that a worker takes and goes on taking, beside one of the base.",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard: how it stands, what it watches, and its plot."""

    name: str
    about: str
    now: GuardEvidence
    plot: Markup


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a label is now.

    Attributes:
        model: The model's name as it is written.
        label: Which label.
        version: Where it points; None where it is not set.
        versions: Which it could go to, newest last.
    """

    model: str
    label: str
    version: str | None
    versions: tuple[str, ...]


def rollouts_page(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/rollouts")
    async def rollouts(request: Request) -> Response:
        reader = current().reader
        return render(request, "rollouts.html", divided=await reader.call(divided_labels, reader.registry))

    @router.get("/console/rollouts/{model}/{label}")
    async def rollout(request: Request, model: str, label: str, rollout: str | None = None) -> Response:
        gateway = current()
        standing = await gateway.reader.call(label_of, gateway.reader.registry, model, label)
        try:
            view, course = await rollout_course(gateway, standing.model, label, rollout)
        except RolloutNotFound:
            if rollout is not None:
                raise
            return render(request, "rollout.html", standing=standing, view=None, limits=GUARD_LIMITS)
        return render(
            request,
            "rollout.html",
            standing=standing,
            view=view,
            limits=GUARD_LIMITS,
            guards=[_guard(name, view.evidence[name], course.points) for name in view.evidence],
            capital=_capital(view.evidence, course.points),
        )

    @router.get("/console/shadow/{model}/{label}")
    async def shadow(request: Request, model: str, label: str) -> Response:
        """What shadow copies told of a version, and how to start and stop them."""
        gateway = current()
        standing = await gateway.reader.call(label_of, gateway.reader.registry, model, label)
        try:
            report = await shadow_report(gateway, standing.model, label)
        except RolloutNotFound:
            report = None
        return render(request, "shadow.html", standing=standing, report=report)

    return router


def label_of(registry: Registry, model: str, label: str) -> Standing:
    """Return where a label is, and where it could go. Blocks.

    Raises:
        InvalidReference: The names are none.
        ModelNotFound: There is no such model.
    """
    check_label(label)
    name = registry.find(check_model_id(model))
    state = registry.state(name)
    versions = tuple(each for each in registry.versions(name) if each not in state.tombstones)
    return Standing(name, label, state.labels.get(label), versions)


def _guard(name: str, now: GuardEvidence, course: Sequence[EvidencePoint]) -> Guard:
    at = partial(_value, name, course)
    lines = [
        Line("is not worse than (bound)", at("bound")),
        Line("is worse by (estimate)", at("estimate")),
    ]
    plot = line_plot(
        lines,
        title=f"{name}: how much worse",
        x=DURATION,
        y=PERCENT,
        limit=now.limit,
        ceiling=_CEILING * now.limit,
        key=f"table-{name}",
    )
    return Guard(name, _ABOUT.get(name, ""), now, plot)


def _capital(evidence: Mapping[str, GuardEvidence], course: Sequence[EvidencePoint]) -> Markup:
    """Return the plot of the case against the candidate, a line a guard."""
    lines = [Line(name, _value(name, course, "evidence")) for name in evidence]
    return line_plot(
        lines,
        title="The case against the candidate",
        x=DURATION,
        y=_EVIDENCE,
        limit=1.0,
        limit_name="rolled back",
        key="table-evidence",
    )


def _value(guard: str, course: Sequence[EvidencePoint], what: str) -> list[Point]:
    """Return one value of a guard over the time since the rollout was first looked at."""
    began = course[0].at if course else None
    found = []
    for point in course:
        seen = point.guards.get(guard)
        assert began is not None
        found.append(Point((point.at - began).total_seconds(), getattr(seen, what) if seen is not None else None))
    return found
