"""The pages of all models and of one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from marway.records import HistoryEntry, ModelState, VersionRecord
from marway.refs import check_model_id
from marway.registry import Registry
from marway.registry.reading import ModelSummary
from marway_gateway.admin.views import ChangeView
from marway_gateway.console.frame import console_router, render
from marway_gateway.console.models.standing import LabelStanding, PodCounts, label_standings, pod_counts, sum_of
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.observe.recent import Recent
from marway_gateway.surfaces.catalogue import found_models

__all__ = ["models_router"]

_MODELS: Final = 50
"""Models on a page: each costs a look at its state in the registry."""
_VERSIONS: Final = 50
_CHANGES: Final = 25

After = Annotated[str, Query(max_length=128)]
Before = Annotated[int | None, Query(ge=1)]


@dataclass(frozen=True, slots=True)
class _Row:
    summary: ModelSummary
    labels: tuple[LabelStanding, ...]
    recent: Recent | None


@dataclass(frozen=True, slots=True)
class _Version:
    record: VersionRecord
    labels: tuple[str, ...]
    pods: PodCounts
    recent: Recent | None


@dataclass(frozen=True, slots=True)
class _Read:
    """What the registry says of a model.

    Attributes:
        name: As it is written.
        state: Labels, rollouts, protection.
        records: Of the newest versions that are not deleted.
        versions: How many there are.
        changes: A page of the history, newest first, and whether there are older ones.
    """

    name: str
    state: ModelState
    records: tuple[VersionRecord, ...]
    versions: int
    changes: tuple[HistoryEntry, ...]
    older: bool


def models_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/models")
    async def models(request: Request, after: After = "", contains: After = "") -> Response:
        return await _models_page(request, current(), after, contains)

    @router.get("/console/models/{model}")
    async def one(request: Request, model: str, before: Before = None, versions: str = "") -> Response:
        return await _model_page(request, current(), model, before=before, all_versions=versions == "all")

    return router


async def _models_page(request: Request, gateway: Gateway, after: str, contains: str) -> Response:
    reader = gateway.reader
    found, following = await reader.call(found_models, reader.registry, _MODELS, after, contains)
    rates = gateway.recent.counts()
    rows = []
    for each in found:
        labels = await label_standings(gateway, each.name, each.state)
        recent = sum_of(rate for (model, _), rate in rates.items() if model == each.name)
        rows.append(_Row(each, labels, recent))
    now = gateway.pods.now()
    takers = sum(pod.status is not None and pod.trouble(now) is None for pod in gateway.pods.pods)
    return render(
        request,
        "models.html",
        rows=rows,
        next=following,
        after=after,
        contains=contains,
        pods_ready=takers,
        pods=len(gateway.pods.pods),
        processes=gateway.settings.processes,
    )


async def _model_page(
    request: Request, gateway: Gateway, model: str, *, before: int | None, all_versions: bool
) -> Response:
    reader = gateway.reader
    read = await reader.call(_read, reader.registry, check_model_id(model), before, None if all_versions else _VERSIONS)
    counts, rates = pod_counts(gateway.pods.pods, gateway.pods.now()), gateway.recent.counts()
    versions = [
        _Version(
            record,
            tuple(sorted(label for label, version in read.state.labels.items() if version == record.version)),
            counts.get((read.name, record.version), PodCounts()),
            rates.get((read.name, record.version)),
        )
        for record in read.records
    ]
    return render(
        request,
        "model.html",
        model=read.name,
        labels=await label_standings(gateway, read.name, read.state),
        versions=versions,
        more_versions=read.versions - len(versions),
        changes=[ChangeView.of(read.name, entry) for entry in read.changes],
        older=read.changes[-1].generation if read.older else None,
        before=before,
        pods=len(gateway.pods.pods),
    )


def _read(registry: Registry, name_or_id: str, before: int | None, limit: int | None) -> _Read:
    """Read a model. Blocks.

    Args:
        registry: Where from.
        name_or_id: Which.
        before: Only changes of generations before this one.
        limit: At most so many versions; None means all.
    """
    pointer = registry.pointer(name_or_id)
    name = registry.find(name_or_id) if pointer is None else pointer.model
    state = registry.state(name)
    kept = [each for each in registry.versions(name) if each not in state.tombstones]
    labelled = {version for version in state.labels.values() if version in kept}
    wanted = kept if limit is None else sorted(labelled | set(kept[-limit:]))
    records = sorted((registry.record(name, each) for each in wanted), key=lambda each: each.created_at, reverse=True)
    found = (entry for entry in registry.history(name) if before is None or entry.generation < before)
    changes = tuple(islice(found, _CHANGES + 1))
    return _Read(name, state, tuple(records), len(kept), changes[:_CHANGES], len(changes) > _CHANGES)
