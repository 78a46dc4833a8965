"""How a model's versions did: latency and quality as plots, and what failed, with what the handler raised.

They come into the model's page after it, as a process reads what was kept of predictions, which takes about a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from marway.errors import MarwayError
from marway.refs import check_model_id
from marway_gateway.admin.versions.handler_lines import handler_log
from marway_gateway.console.frame import HEADERS, console_router, fragment
from marway_gateway.console.models.intervals import interval_plot
from marway_gateway.console.plots import MILLISECONDS, TIME, Axis, Line, Point, line_plot
from marway_gateway.gateway import CurrentGateway
from marway_observations.evaluate.results import Quality
from marway_observations.searching.questions import Figures, LatencyPoint, ModelFigures

__all__ = ["figures_router"]

_SINCE: Final = (("1h", "hour"), ("24h", "day"), ("7d", "week"), ("30d", "30 days"))
_LINES_MAX: Final = 8
_TRACEBACKS: Final = 20

RequestId = Annotated[str, Query(alias="request", max_length=128)]


def figures_router(current: CurrentGateway) -> APIRouter:
    """Return the routes of what the page of a model fetches."""
    router = console_router()

    @router.get("/console/models/{model}/figures")
    async def figures(request: Request, model: str, since: Literal["1h", "24h", "7d", "30d"] = "24h") -> Response:
        found: ModelFigures | None = None
        trouble: str | None = None
        try:
            found = await current().kept.figures(Figures(model=check_model_id(model), since=since))
        except MarwayError as exc:
            trouble = exc.message
        values: dict[str, Any] = {"model": model, "since": since, "times": _SINCE, "found": found, "trouble": trouble}
        plots = _latency_plots(found) if found is not None else ()
        judged = _quality_plots(found.quality) if found is not None else ()
        text = fragment(request, "figures.html", latency=plots, quality=judged, **values)
        return Response(text, headers=HEADERS, media_type="text/html")

    @router.get("/console/models/{model}/versions/{version}/traceback")
    async def traceback(request: Request, model: str, version: str, request_id: RequestId) -> Response:
        log, trouble = None, None
        try:
            log = await handler_log(current(), model, version, request_id=request_id, limit=_TRACEBACKS)
        except MarwayError as exc:
            trouble = exc.message
        text = fragment(request, "traceback.html", log=log, trouble=trouble, request_id=request_id)
        return Response(text, headers=HEADERS, media_type="text/html")

    return router


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d %b %H:%M")


_DAYS: Final = Axis("date (UTC)", _date, (86400.0, 172800.0, 604800.0))


def _latency_plots(found: ModelFigures) -> tuple[Markup, ...]:
    """Return plots of p50 and p99 by version: of those that were asked most, where there are more than lines."""
    by_version: dict[str, list[LatencyPoint]] = defaultdict(list)
    for point in found.latency:
        by_version[point.version].append(point)
    most = sorted(by_version, key=lambda version: -sum(each.requests for each in by_version[version]))[:_LINES_MAX]
    x = _DAYS if (found.until - found.since).total_seconds() > 2 * 86400 else TIME

    def lines(figure: str) -> list[Line]:
        return [Line(version, _points(by_version[version], figure, found.bucket_s)) for version in sorted(most)]

    return tuple(
        line_plot(lines(figure), title=f"{name} by version", x=x, y=MILLISECONDS, key=f"latency-{name}")
        for name, figure in (("p50", "p50_s"), ("p99", "p99_s"))
    )


def _points(points: Sequence[LatencyPoint], figure: str, bucket_s: float) -> list[Point]:
    """Return the points of a line, with a gap where stretches without a prediction are."""
    found: list[Point] = []
    for point in points:
        at = point.at.timestamp()
        if found and at - found[-1].x > 1.5 * bucket_s:
            found.append(Point(found[-1].x + bucket_s, None))
        found.append(Point(at, getattr(point, figure) * 1000))
    return found


def _quality_plots(results: Sequence[Quality]) -> tuple[Markup, ...]:
    """Return a plot for each figure, with a row for each version."""
    by_metric: dict[str, list[Quality]] = defaultdict(list)
    for each in results:
        if each.value is not None:
            by_metric[each.metric].append(each)
    return tuple(interval_plot(metric, rows) for metric, rows in sorted(by_metric.items()))
