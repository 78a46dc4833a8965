"""The Open Inference Protocol's model repository extension, on the admin port: what there is, load, unload."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import ConfigDict, Field

from marway import errors
from marway.deadline import Deadline
from marway.graphs import GRAPH_BACKEND
from marway.refs import check_label, check_version, is_label
from marway.registry import Registry
from marway.resolve.resolved import Resolved
from marway.wire.pods import ModelStatus
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.http.error_bodies import ERROR_TEXT
from marway_gateway.http.requests import FastPathApp
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.openapi import REFERENCE_ERRORS, error_responses
from marway_gateway.surfaces.catalogue import AnyModel

__all__ = ["IndexEntry", "add_repository"]

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]

_STATES: Final[dict[str, State]] = {
    "ready": "READY",
    "fetching": "LOADING",
    "loading": "LOADING",
    "draining": "UNLOADING",
    "failed": "UNAVAILABLE",
    "absent": "UNAVAILABLE",
}
"""The protocol's states by those of a pod, the best first."""
_BEST: Final = tuple(_STATES)


class IndexRequest(JsonModel):
    """What to list."""

    model_config = examples({"ready": True})

    ready: bool = Field(default=False, description="Only what some pod has loaded.")


class IndexEntry(JsonModel):
    """One version."""

    model_config = examples({"name": "intent", "version": "1.0", "state": "READY", "reason": ""})

    name: str
    version: str
    state: State = Field(
        description="The best that any pod has; a version that is not loaded can be asked all the same."
    )
    reason: str = Field(default="", description="Why it could not be loaded.")


class LoadParameters(JsonModel):
    """Which version."""

    model_config = ConfigDict(extra="allow")

    version: str | None = Field(default=None, description="A version, or a label; PROD when left out.")


class LoadRequest(JsonModel):
    """What to load or unload."""

    model_config = examples({"parameters": {"version": "1.0"}})

    parameters: LoadParameters | None = None


class LoadAnswer(JsonModel):
    """What was done."""

    model_config = examples({"name": "intent", "version": "1.0", "pods": ["a"]})

    name: str
    version: str
    pods: list[str] = Field(description="Where it was loaded, or unloaded.")


_CHANGE: Final = (
    *REFERENCE_ERRORS,
    *(errors.InvalidRequest, errors.MarwayError, errors.NoPodAvailable, errors.DeadlineExceeded),
)


class _JsonRoute(APIRoute):
    """Takes a body for JSON whatever its content type: Triton's client sends none, and curl says that it is a form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def as_json(request: Request) -> Response:
            others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
            scope = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
            return await handle(Request(scope, request.receive))

        return as_json


def add_repository(app: FastPathApp, current: CurrentGateway) -> None:
    """Add the routes to the admin app."""
    router = APIRouter(tags=["open inference"], route_class=_JsonRoute)

    @router.post(
        "/v2/repository/index",
        summary="List versions and where they stand",
        responses=error_responses(ERROR_TEXT, errors.InvalidRequest, errors.RegistryUnavailable),
    )
    async def repository_index(request: IndexRequest | None = None) -> list[IndexEntry]:
        gateway = current()
        loaded = {each: _entry(model) for each, model in _loaded(gateway).items()}
        if request is not None and request.ready:
            return [entry for _, entry in sorted(loaded.items()) if entry.state == "READY"]
        known = await gateway.reader.call(_published, gateway.reader.registry)
        return [loaded.get(each) or IndexEntry(name=each[0], version=each[1], state="UNAVAILABLE") for each in known]

    @router.post(
        "/v2/repository/models/{model}/load", summary="Load a version", responses=error_responses(ERROR_TEXT, *_CHANGE)
    )
    async def repository_load(model: AnyModel, request: LoadRequest | None = None) -> LoadAnswer:
        """On its first pods, as many as its serving settings say."""
        gateway = current()
        resolved = await _resolve(gateway, model, request)
        record = resolved.record
        deadline = Deadline.after(resolved.serving.load_timeout_s)
        loads = await gateway.loader.load(record, resolved.serving, prove=False, pod=None, deadline=deadline)
        return LoadAnswer(name=record.name, version=record.version, pods=[each.where for each in loads])

    @router.post(
        "/v2/repository/models/{model}/unload",
        summary="Unload a version",
        responses=error_responses(ERROR_TEXT, *_CHANGE),
    )
    async def repository_unload(model: AnyModel, request: LoadRequest | None = None) -> LoadAnswer:
        """From every pod that has it; the next request for it loads it again."""
        gateway = current()
        resolved = await _resolve(gateway, model, request)
        record = resolved.record
        if record.backend == GRAPH_BACKEND:
            await gateway.loader.unload(record, pod=None, deadline=Deadline.after(gateway.settings.default_timeout_s))
        having = [
            pod
            for pod in gateway.pods.pods
            if pod.status is not None
            and any(model.id == record.id and model.state != "absent" for model in pod.status.models)
        ]
        deadline = Deadline.after(gateway.settings.default_timeout_s)
        for pod in having:
            await gateway.loader.unload(record, pod=pod.name, deadline=deadline)
        return LoadAnswer(name=record.name, version=record.version, pods=[pod.name for pod in having])

    app.include_router(router)


async def _resolve(gateway: Gateway, model: str, request: LoadRequest | None) -> Resolved:
    parameters = (request.parameters if request is not None else None) or LoadParameters()
    for name, value in (parameters.model_extra or {}).items():
        # Triton's client always says whether dependents are to be unloaded; no model here has any.
        if name == "unload_dependents" or (name == "config" and value in ("", "{}")):
            continue
        raise errors.InvalidRequest(
            f"the parameter {errors.clip(name, 100)!r} has no effect here: a version is served as it was published; "
            "publish another, or change how it is served with `marway serving MODEL --set NAME=VALUE`"
        )
    selector = parameters.version
    if selector is not None:
        selector = check_label(selector) if is_label(selector) else check_version(selector)
    return await gateway.resolver.resolve(model, selector)


def _loaded(gateway: Gateway) -> dict[tuple[str, str], ModelStatus]:
    """Return each version that a pod told of, by name and version, in the best state that any has."""
    told = [model for pod in gateway.pods.pods if pod.status is not None for model in pod.status.models]
    told.sort(key=lambda model: _BEST.index(model.state), reverse=True)
    return {(model.name, model.version): model for model in told}


def _entry(model: ModelStatus) -> IndexEntry:
    state = _STATES[model.state]
    reason = model.failure or "" if state == "UNAVAILABLE" else ""
    return IndexEntry(name=model.name, version=model.version, state=state, reason=reason)


def _published(registry: Registry) -> list[tuple[str, str]]:
    """Read what there is. Blocks; one listing and one state for each model."""
    return [(name, version) for name in registry.models() for version in registry.summary(name).versions]
