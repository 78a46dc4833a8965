"""The admin HTTP app, on a port of its own: what the pods are doing."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from marway.wire.pods import PodStatus
from marway_gateway.app import new_app
from marway_gateway.gateway import Gateway
from marway_gateway.placement import Pod
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.catalogue import catalogue_router
from marway_gateway.surfaces.repository import repository_router

__all__ = ["PodView", "create_admin_app"]


class PodView(BaseModel):
    """One pod as this gateway sees it. Times in seconds."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "a",
                    "url": "http://10.0.0.7:9000",
                    "eligible": True,
                    "trouble": None,
                    "ejected_for_s": None,
                    "ejections": 0,
                    "requests_in_flight": 2,
                    "status": {"name": "a", "boot_id": "7c1e", "backend": "torchserve", "ready": True},
                }
            ]
        },
    )

    name: str
    url: str
    eligible: bool = Field(description="Whether it gets requests.")
    trouble: str | None = Field(description="Why it gets none.")
    ejected_for_s: float | None = Field(description="How much longer it is ejected; null when it is not.")
    ejections: int = Field(description="Ejections in a row; each lasts longer.")
    requests_in_flight: int = Field(description="Of this gateway alone.")
    status: PodStatus | None = Field(description="What the pod said of itself last; null before its first answer.")


def create_admin_app(settings: GatewaySettings, *, gateway: Gateway | None = None) -> FastAPI:
    """Return the admin app.

    Args:
        settings: All of them.
        gateway: Parts that are open already and stay so; without them the app opens its own while it runs.
    """
    app, current = new_app(settings, title="Marway gateway, admin port", gateway=gateway)
    app.include_router(catalogue_router(current))
    app.include_router(repository_router(current))

    @app.get("/pods", tags=["pods"], summary="List pods")
    async def list_pods() -> list[PodView]:
        pods = current().pods
        now = pods.now()
        return [_view(pod, now) for pod in pods.pods]

    return app


def _view(pod: Pod, now: float) -> PodView:
    trouble = pod.trouble(now)
    ejected = pod.ejected_until is not None and now < pod.ejected_until
    return PodView(
        name=pod.name,
        url=pod.url,
        eligible=trouble is None,
        trouble=trouble,
        ejected_for_s=round(pod.ejected_until - now, 1) if ejected and pod.ejected_until is not None else None,
        ejections=pod.ejections,
        requests_in_flight=pod.requests_in_flight,
        status=pod.status,
    )
