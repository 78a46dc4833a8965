"""The page of all pods: who they are, what they have, and how to steer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from marway.wire.pods import ModelStatus, PodStatus
from marway_gateway.admin.pod_views import PodView
from marway_gateway.console.frame import console_router, render
from marway_gateway.console.plots import Part, part_bar, unit_bytes
from marway_gateway.gateway import CurrentGateway, Gateway

__all__ = ["pods_page"]

_PODS_SHOWN: Final = 50
_MODELS_SHOWN: Final = 50
_PARTS: Final = 8
"""Versions that a bar tells apart; the smaller ones are one part."""
_FIRST: Final = ("fetching", "loading", "failed", "draining", "ready", "absent")
"""What somebody who looks wants to see first."""


@dataclass(frozen=True, slots=True)
class _Device:
    """A GPU and its bar."""

    name: str
    bar: Markup
    used: int
    total: int


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod, and what is shown of it.

    Attributes:
        view: As `GET /pods` has it.
        models: Its versions, what needs looking at first.
        more: How many versions are not shown.
        bar: Its memory by version.
        looks: By the id of each version that the bar tells apart, the class that both are drawn with.
        devices: Its GPUs.
    """

    view: PodView
    models: Sequence[ModelStatus]
    more: int
    bar: Markup
    looks: Mapping[str, str]
    devices: Sequence[_Device]


def pods_page(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = console_router()

    @router.get("/console/pods")
    async def pods(request: Request, contains: str = "", model: str = "") -> Response:
        gateway = current()
        now = gateway.pods.now()
        known = sorted(gateway.pods.pods, key=lambda pod: pod.name)
        found = [pod for pod in known if contains.lower() in pod.name.lower()]
        shown = [_pod(PodView.of(pod, now), model) for pod in found[:_PODS_SHOWN]]
        return render(
            request,
            "pods.html",
            pods=shown,
            known=len(known),
            found=len(found),
            contains=contains,
            model=model,
            pinned=_pinned(gateway, shown),
        )

    return router


def _pod(view: PodView, model: str) -> _Pod:
    status = view.status
    models = sorted(
        (each for each in (status.models if status is not None else ()) if model.lower() in each.name.lower()),
        key=lambda each: (_FIRST.index(each.state), -each.memory_bytes, each.name, each.version),
    )
    shown = models[:_MODELS_SHOWN]
    return _Pod(view, shown, len(models) - len(shown), *_memory(view.name, status), _devices(status))


def _pinned(gateway: Gateway, pods: Sequence[_Pod]) -> dict[str, bool]:
    """Return by id which versions are pinned now: pods see a changed setting up to two seconds later than this."""
    found = {}
    for model in {each.id: each for pod in pods for each in pod.models}.values():
        known = gateway.resolver.lookup(model.name, model.version)
        found[model.id] = known.serving.pinned if known is not None else model.pinned
    return found


def _memory(name: str, status: PodStatus | None) -> tuple[Markup, Mapping[str, str]]:
    """Return the bar of a pod's memory, and the look of each version in it."""
    if status is None:
        return Markup(""), {}
    sizes = sorted((each for each in status.models if each.memory_bytes), key=lambda each: -each.memory_bytes)
    looks = {each.id: f"part-{number}" for number, each in enumerate(sizes[:_PARTS], 1)}
    parts = [
        Part(f"{each.name} {each.version}", each.memory_bytes, unit_bytes(each.memory_bytes), looks[each.id])
        for each in sizes[:_PARTS]
    ]
    if left := sum(each.memory_bytes for each in sizes[_PARTS:]):
        parts.append(Part(f"{len(sizes) - _PARTS} more", left, unit_bytes(left), "part-others"))
    budget = status.memory_budget_bytes
    text = unit_bytes(budget) if budget is not None else None
    return part_bar(parts, total=budget, title=f"Memory of {name}", total_text=text), looks


def _devices(status: PodStatus | None) -> list[_Device]:
    found = []
    for each in status.devices if status is not None else ():
        if each.used_bytes is None or each.total_bytes is None:
            continue
        name = f"GPU {each.index}{f', {each.name}' if each.name else ''}"
        part = Part("in use", each.used_bytes, unit_bytes(each.used_bytes))
        bar = part_bar([part], total=each.total_bytes, title=name, total_text=unit_bytes(each.total_bytes))
        found.append(_Device(name, bar, each.used_bytes, each.total_bytes))
    return found
