"""Admin routes about a version on the pods: load ahead, compare, unload, where it is."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request

from marway import errors
from marway.deadline import Deadline
from marway.records import ServingSettings, VersionRecord
from marway.wire.comparison import Comparison
from marway_gateway.admin.labels import Model, Timeout, deadline_of
from marway_gateway.admin.views import LoadView, PodLoadView, PodModelView, PodsView, UnloadView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.openapi import REFERENCE_ERRORS, problems
from marway_gateway.placement import Pod

__all__ = ["versions_router"]

VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["1.1", "PROD"])]
PodName = Annotated[str | None, Query(alias="pod", max_length=128, description="Only this pod.", examples=["pod-0"])]
Prove = Annotated[
    bool, Query(description="Compare the answers to all golden examples, and store a proof if they are the same.")
]
Base = Annotated[
    str,
    Query(max_length=128, description="The version, or the label of it, to compare with.", examples=["PROD", "1.0"]),
]

_REFERENCE: Final = (*REFERENCE_ERRORS, errors.MarwayError)


def versions_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["versions"])

    @router.post(
        "/models/{model}/versions/{version}/load",
        summary="Load a version ahead of its requests, and prove it",
        responses=problems(
            *(*_REFERENCE, errors.InvalidRequest, errors.PodNotFound, errors.AnswersDiffer, errors.LoadFailed),
            *(errors.ArchiveCorrupt, errors.NoPodAvailable, errors.Overloaded, errors.DeadlineExceeded),
        ),
    )
    async def load_version(
        request: Request,
        model: Model,
        version: VersionOrLabel,
        pod: PodName = None,
        prove: Prove = False,
        x_request_timeout_ms: Timeout = None,
    ) -> LoadView:
        """On the pods where its requests will go, or on one pod."""
        gateway = current()
        record, serving, deadline = await _to_load(gateway, request, model, version)
        loads = await gateway.loader.load(record, serving, prove=prove, pod=pod, deadline=deadline)
        return LoadView(model=record.name, version=record.version, loads=tuple(PodLoadView.of(each) for each in loads))

    @router.post(
        "/models/{model}/versions/{version}/compare",
        summary="Compare a version's answers with another one's",
        responses=problems(
            *(*_REFERENCE, errors.InvalidRequest, errors.LoadFailed, errors.ArchiveCorrupt),
            *(errors.NoPodAvailable, errors.Overloaded, errors.DeadlineExceeded),
        ),
    )
    async def compare_versions(
        request: Request,
        model: Model,
        version: VersionOrLabel,
        base: Base,
        x_request_timeout_ms: Timeout = None,
    ) -> Comparison:
        """A pod loads both and asks them in turns, as a release does; no label moves."""
        gateway = current()
        record, serving, deadline = await _to_load(gateway, request, model, version)
        other = await gateway.resolver.resolve(model, base)
        loads = await gateway.loader.load(record, serving, prove=False, pod=None, deadline=deadline)
        return await gateway.pod_api.compare(
            loads[0].pod, record.name, record.version, base=other.record.version, deadline=deadline
        )

    @router.post(
        "/models/{model}/versions/{version}/unload",
        summary="Unload a version once its requests have ended",
        responses=problems(
            *(*_REFERENCE, errors.InvalidRequest, errors.PodNotFound, errors.NoPodAvailable, errors.DeadlineExceeded)
        ),
    )
    async def unload_version(
        request: Request,
        model: Model,
        version: VersionOrLabel,
        pod: PodName = None,
        x_request_timeout_ms: Timeout = None,
    ) -> UnloadView:
        """On every pod that answers, or on one pod. The next request loads it again."""
        gateway = current()
        deadline = deadline_of(request, gateway) or Deadline.after(gateway.settings.default_timeout_s)
        record = (await gateway.resolver.resolve(model, version)).record
        done = await gateway.loader.unload(record, pod=pod, deadline=deadline)
        return UnloadView(model=record.name, version=record.version, pods={each.name: status for each, status in done})

    @router.get(
        "/models/{model}/versions/{version}/pods",
        summary="On which pods a version is, and in which state",
        responses=problems(*_REFERENCE),
    )
    async def version_pods(model: Model, version: VersionOrLabel) -> PodsView:
        gateway = current()
        record = (await gateway.resolver.resolve(model, version)).record
        now = gateway.pods.now()
        order = gateway.pods.order(record.name, record.version)
        return PodsView(
            model=record.name,
            version=record.version,
            id=record.id,
            pods=tuple(_on(pod, record.id, now) for pod in order),
        )

    return router


async def _to_load(
    gateway: Gateway, request: Request, model: str, version: str
) -> tuple[VersionRecord, ServingSettings, Deadline]:
    """Return a version, how it is served, and the deadline: by default what its load may take."""
    deadline = deadline_of(request, gateway)
    resolved = await gateway.resolver.resolve(model, version)
    return resolved.record, resolved.serving, deadline or Deadline.after(resolved.serving.load_timeout_s)


def _on(pod: Pod, model_id: str, now: float) -> PodModelView:
    models = pod.status.models if pod.status is not None else ()
    trouble = pod.trouble(now)
    return PodModelView(
        pod=pod.name,
        eligible=trouble is None,
        trouble=trouble,
        model=next((model for model in models if model.id == model_id), None),
    )
