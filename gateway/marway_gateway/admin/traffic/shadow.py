"""Admin routes of shadow copies: a version is sent copies of a label's requests, and what they told of it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from marway import errors
from marway.deadline import Deadline
from marway.records import VersionRecord
from marway.refs import check_label, check_model_id, check_version
from marway.registry import Registry
from marway.shadow.report import ShadowReport, read_report
from marway_gateway.admin.labels import CHANGE_ERRORS, LOAD_ERRORS
from marway_gateway.admin.parameters import CallerOf, Model, NoteOf, TimeoutOf, deadline_of
from marway_gateway.admin.views import ChangeView, Note, PodLoadView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.openapi import Label, problems

__all__ = ["shadow_report", "shadow_router"]

Copied = Annotated[str | None, Query(alias="version", max_length=128, description="Only copies to this version.")]
_LATENCY: Final[JsonDict] = {"p50_ms": 3.4, "p99_ms": 9.1}
_REPORT: Final[JsonDict] = {
    "model": "intent",
    "label": "PROD",
    "run": "shadow-PROD-20260304T120000000000",
    "running": True,
    "base": "1.0",
    "began": "2026-03-04T12:00:00Z",
    "processes": 2,
    "versions": [
        {
            "version": "1.1",
            "percent": 100.0,
            "answered": 5120,
            "failed": 2,
            "base_failed": 0,
            "compared": 5118,
            "not_comparable": 0,
            "agreement": 0.984,
            "equal": 0.12,
            "shape_differs": 0,
            "nonfinite": 0,
            "base_nonfinite": 0,
            "rows": 5118,
            "dropped": {"no_room": 31},
            "fields": [{"name": "score", "count": 4500}, {"name": "label", "count": 82}],
            "shapes": [],
            "decisions": [{"name": '"timer" is now "alarm"', "count": 40}],
            "errors": [{"name": "status 500", "count": 2}],
            "latency": _LATENCY,
            "base_latency": _LATENCY,
            "examples": [],
        }
    ],
}


class ShadowStart(JsonModel):
    """Which version gets copies, and of how many requests."""

    model_config = ConfigDict(extra="forbid", **examples({"version": "1.1", "percent": 10}))

    version: str = Field(max_length=128, description="A version; it must be published.", examples=["1.1"])
    percent: float = Field(default=100.0, gt=0, le=100, description="Of the label's requests, how many in a hundred.")
    note: Note = None


class ShadowStartView(JsonModel):
    """Copies that were started, and where the version was loaded for them."""

    change: ChangeView
    loads: tuple[PodLoadView, ...]


class ShadowReportView(ShadowReport):
    """What copies told of a version."""

    model_config = ConfigDict(**examples(_REPORT))


def shadow_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/models/{model}/labels/{label}/shadow", tags=["rollouts"])

    @router.post(
        "",
        summary="Send copies of a label's requests to a version whose answers nobody gets",
        operation_id="start_shadow",
        responses=problems(*CHANGE_ERRORS, *LOAD_ERRORS),
    )
    async def start(
        model: Model, label: Label, start: ShadowStart, caller: CallerOf, timeout: TimeoutOf
    ) -> ShadowStartView:
        """A pod loads the version first, as copies load nothing; where none can, nothing is started."""
        gateway = current()
        record = await gateway.reader.call(_record, gateway.reader.registry, model, start.version)
        state = await gateway.reader.call(gateway.reader.registry.state, record.name)
        serving = state.serving_for(record)
        deadline = deadline_of(timeout, gateway.settings) or Deadline.after(serving.load_timeout_s)
        loads = await gateway.loader.load(record, serving, prove=False, pod=None, deadline=deadline)
        name, change = await gateway.writer.change(
            gateway.writer.registry.start_shadow,
            model,
            record.version,
            label=label,
            percent=start.percent,
            note=start.note,
            by=caller.by,
            op_id=caller.op_id,
        )
        return ShadowStartView(
            change=ChangeView.of(name, change.entry), loads=tuple(PodLoadView.of(each) for each in loads)
        )

    @router.delete(
        "",
        summary="Send no more copies",
        operation_id="stop_shadow",
        responses=problems(*CHANGE_ERRORS),
    )
    async def stop(
        model: Model, label: Label, caller: CallerOf, version: Copied = None, note: NoteOf = None
    ) -> ChangeView:
        writer = current().writer
        name, change = await writer.change(
            writer.registry.stop_shadow,
            model,
            version,
            label=label,
            note=note,
            by=caller.by,
            op_id=caller.op_id,
        )
        return ChangeView.of(name, change.entry)

    @router.get(
        "",
        summary="What copies told: of those that are made now, or were last",
        operation_id="shadow_report",
        responses=problems(
            *(errors.InvalidReference, errors.ModelNotFound, errors.RolloutNotFound, errors.InvalidRecord),
            errors.RegistryUnavailable,
        ),
    )
    async def report(model: Model, label: Label) -> ShadowReportView:
        """The sum over all gateways, of which each writes down what it counted every two seconds."""
        found = await shadow_report(current(), model, label)
        return ShadowReportView.model_validate(found.model_dump())

    return router


async def shadow_report(gateway: Gateway, model: str, label: str) -> ShadowReport:
    """Return what the copies of a label's requests told that are made now, or were last.

    Raises:
        RolloutNotFound: None were ever made.
        MarwayError: It cannot be read.
    """
    return await gateway.reader.call(_report, gateway.reader.registry, model, label)


def _record(registry: Registry, model: str, version: str) -> VersionRecord:
    return registry.record(registry.find(check_model_id(model)), check_version(version))


def _report(registry: Registry, model: str, label: str) -> ShadowReport:
    return read_report(registry, model, check_label(label))
