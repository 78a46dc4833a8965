"""Admin routes about pods: load, compare and unload a version on them, see what they have, take them out and in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query

from marway import errors
from marway.deadline import Deadline
from marway.graphs import GRAPH_BACKEND
from marway.records import VersionRecord
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.wire.comparison import Comparison
from marway.wire.pods import PodStatus
from marway_gateway.admin.graph_versions import Part
from marway_gateway.admin.parameters import Model, TimeoutOf, deadline_of
from marway_gateway.admin.pod_views import PodModelView, PodsView, PodView, UnloadView
from marway_gateway.admin.views import LoadView, PodLoadView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.openapi import REFERENCE_ERRORS, problems
from marway_gateway.placement import Pod

__all__ = ["pods_router"]

VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["1.1", "PROD"])]
OnePod = Annotated[str | None, Query(alias="pod", max_length=128, description="Only this pod.", examples=["pod-0"])]
PodName = Annotated[str, Path(description="A pod's name, as `GET /pods` shows it.", examples=["pod-0"])]
Prove = Annotated[
    bool, Query(description="Compare the answers to all golden examples, and store a proof if they are the same.")
]
Base = Annotated[
    str,
    Query(max_length=128, description="The version, or the label of it, to compare with.", examples=["PROD", "1.0"]),
]

_REFERENCE: Final = (*REFERENCE_ERRORS, errors.MarwayError)


def pods_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    _add_version_routes(router, current)
    _add_pod_routes(router, current)
    return router


def _add_version_routes(router: APIRouter, current: CurrentGateway) -> None:

    @router.post(
        "/models/{model}/versions/{version}/load",
        tags=["versions"],
        summary="Load a version ahead of its requests, and prove it",
        responses=problems(
            *(*_REFERENCE, errors.InvalidRequest, errors.PodNotFound, errors.AnswersDiffer, errors.LoadFailed),
            *(errors.ArchiveCorrupt, errors.NoPodAvailable, errors.Overloaded, errors.DeadlineExceeded),
        ),
    )
    async def load_version(
        model: Model, version: VersionOrLabel, timeout: TimeoutOf, pod: OnePod = None, prove: Prove = False
    ) -> LoadView:
        """On the pods where its requests will go, or on one pod."""
        gateway = current()
        record, serving, deadline = await _to_load(gateway, timeout, model, version)
        loads = await gateway.loader.load(record, serving, prove=prove, pod=pod, deadline=deadline)
        return LoadView(model=record.name, version=record.version, loads=tuple(PodLoadView.of(each) for each in loads))

    @router.post(
        "/models/{model}/versions/{version}/compare",
        tags=["versions"],
        summary="Compare a version's answers with another one's",
        responses=problems(
            *(*_REFERENCE, errors.InvalidRequest, errors.LoadFailed, errors.ArchiveCorrupt),
            *(errors.NoPodAvailable, errors.Overloaded, errors.DeadlineExceeded),
        ),
    )
    async def compare_versions(model: Model, version: VersionOrLabel, base: Base, timeout: TimeoutOf) -> Comparison:
        """A pod loads both and asks them in turns, as a release does; no label moves."""
        gateway = current()
        record, serving, deadline = await _to_load(gateway, timeout, model, version)
        other = await gateway.resolver.resolve(model, base)
        loads = await gateway.loader.load(record, serving, prove=False, pod=None, deadline=deadline)
        compared = Resolved(record, serving, None)
        return await gateway.loader.compare(loads[0], compared, base=other.record.version, deadline=deadline)

    @router.post(
        "/models/{model}/versions/{version}/unload",
        tags=["versions"],
        summary="Unload a version once its requests have ended",
        responses=problems(
            *(*_REFERENCE, errors.InvalidRequest, errors.PodNotFound, errors.NoPodAvailable, errors.DeadlineExceeded)
        ),
    )
    async def unload_version(
        model: Model, version: VersionOrLabel, timeout: TimeoutOf, pod: OnePod = None
    ) -> UnloadView:
        """On every pod that answers, or on one pod. The next request loads it again."""
        gateway = current()
        deadline = deadline_of(timeout, gateway.settings) or Deadline.after(gateway.settings.default_timeout_s)
        record = (await gateway.resolver.resolve(model, version)).record
        done = await gateway.loader.unload(record, pod=pod, deadline=deadline)
        return UnloadView(model=record.name, version=record.version, pods={each.name: status for each, status in done})

    @router.get(
        "/models/{model}/versions/{version}/pods",
        tags=["versions"],
        summary="On which pods a version is, and in which state",
        responses=problems(*_REFERENCE),
    )
    async def version_pods(model: Model, version: VersionOrLabel) -> PodsView:
        """Of a graph, which no pod has, where that is which its nodes ask."""
        gateway = current()
        resolved = await gateway.resolver.resolve(model, version)
        record, pods = resolved.record, gateway.pods
        now = pods.now()
        if record.backend == GRAPH_BACKEND:
            parts = [each for each in await gateway.loader.graphs.parts(record) if not each.is_table]
        else:
            parts = [Part("", resolved, needed=True)]
        found = []
        for part in parts:
            asked = part.resolved.record
            order = pods.order(asked.name, asked.version)
            found += [_on(pod, asked.id, now, part.node or None) for pod in order]
        return PodsView(model=record.name, version=record.version, id=record.id, pods=tuple(found))


def _add_pod_routes(router: APIRouter, current: CurrentGateway) -> None:
    @router.get("/pods", tags=["pods"], summary="List pods")
    async def list_pods() -> list[PodView]:
        pods = current().pods
        now = pods.now()
        return [PodView.of(pod, now) for pod in pods.pods]

    @router.get("/pods/{pod}", tags=["pods"], summary="Show a pod", responses=problems(errors.PodNotFound))
    async def show_pod(pod: PodName) -> PodView:
        return PodView.of(current().loader.pod(pod), current().pods.now())

    @router.post(
        "/pods/{pod}/drain",
        tags=["pods"],
        summary="Have a pod take no more requests",
        responses=problems(errors.PodNotFound, errors.NoPodAvailable, errors.DeadlineExceeded, errors.MarwayError),
    )
    async def drain_pod(pod: PodName) -> PodView:
        """Every gateway hears of it from the pod. Requests that it has are finished."""
        return await turned(pod, current().pod_api.drain)

    @router.delete(
        "/pods/{pod}/drain",
        tags=["pods"],
        summary="Have a drained pod take requests again",
        responses=problems(
            *(errors.PodNotFound, errors.Conflict, errors.NoPodAvailable, errors.DeadlineExceeded, errors.MarwayError)
        ),
    )
    async def undrain_pod(pod: PodName) -> PodView:
        return await turned(pod, current().pod_api.undrain)

    async def turned(name: str, turn: Callable[[Pod], Awaitable[PodStatus]]) -> PodView:
        """Take in what a pod says of itself, sooner than its watch tells it, and return its view."""
        pods, pod = current().pods, current().loader.pod(name)
        asked_at = pods.now()
        pods.observe(pod, await turn(pod), asked_at=asked_at)
        return PodView.of(pod, pods.now())


async def _to_load(
    gateway: Gateway, timeout: str | None, model: str, version: str
) -> tuple[VersionRecord, ServingSettings, Deadline]:
    """Return a version, how it is served, and the deadline: by default what its load may take."""
    deadline = deadline_of(timeout, gateway.settings)
    resolved = await gateway.resolver.resolve(model, version)
    return resolved.record, resolved.serving, deadline or Deadline.after(resolved.serving.load_timeout_s)


def _on(pod: Pod, model_id: str, now: float, node: str | None) -> PodModelView:
    models = pod.status.models if pod.status is not None else ()
    trouble = pod.trouble(now)
    return PodModelView(
        pod=pod.name,
        node=node,
        eligible=trouble is None,
        trouble=trouble,
        model=next((model for model in models if model.id == model_id), None),
    )
