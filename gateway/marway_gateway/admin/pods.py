"""Admin routes about pods: what they are doing, and taking them out and in again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from marway import errors
from marway.wire.pods import PodStatus
from marway_gateway.admin.views import PodView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.openapi import problems
from marway_gateway.placement import Pod

__all__ = ["pods_router"]

PodName = Annotated[str, Path(description="A pod's name, as `GET /pods` shows it.", examples=["pod-0"])]


def pods_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["pods"])

    @router.get("/pods", summary="List pods")
    async def list_pods() -> list[PodView]:
        pods = current().pods
        now = pods.now()
        return [PodView.of(pod, now) for pod in pods.pods]

    @router.get("/pods/{pod}", summary="Show a pod", responses=problems(errors.PodNotFound))
    async def show_pod(pod: PodName) -> PodView:
        return PodView.of(current().loader.pod(pod), current().pods.now())

    @router.post(
        "/pods/{pod}/drain",
        summary="Have a pod take no more requests",
        responses=problems(errors.PodNotFound, errors.NoPodAvailable, errors.DeadlineExceeded, errors.MarwayError),
    )
    async def drain_pod(pod: PodName) -> PodView:
        """Every gateway hears of it from the pod. Requests that it has are finished."""
        gateway = current()
        found = gateway.loader.pod(pod)
        asked_at = gateway.pods.now()
        return _told(gateway, found, await gateway.pod_api.drain(found), asked_at)

    @router.delete(
        "/pods/{pod}/drain",
        summary="Have a drained pod take requests again",
        responses=problems(
            *(errors.PodNotFound, errors.Conflict, errors.NoPodAvailable, errors.DeadlineExceeded, errors.MarwayError)
        ),
    )
    async def undrain_pod(pod: PodName) -> PodView:
        gateway = current()
        found = gateway.loader.pod(pod)
        asked_at = gateway.pods.now()
        return _told(gateway, found, await gateway.pod_api.undrain(found), asked_at)

    return router


def _told(gateway: Gateway, pod: Pod, status: PodStatus, asked_at: float) -> PodView:
    """Take in what a pod said just now, sooner than its watch tells it, and return its view."""
    gateway.pods.observe(pod, status, asked_at=asked_at)
    return PodView.of(pod, gateway.pods.now())
