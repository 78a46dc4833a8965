"""What the management API tells of versions: of their records, how they are served, and what pods say of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from marway.graphs import GRAPH_BACKEND, TABLE_BACKEND
from marway.records import VersionRecord
from marway.refs import DEFAULT_LABEL
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.pods import ModelStatus
from marway_gateway.placement import Pod, PodSet

__all__ = ["LIMIT", "described", "having", "in_gateway", "page"]

LIMIT: Final = 100
"""Models of a page: what TorchServe gives where more are asked for, or none is a number."""


def in_gateway(record: VersionRecord) -> bool:
    """Return whether gateways answer for a version, and no pod has it: a graph, or a table."""
    return record.backend in (GRAPH_BACKEND, TABLE_BACKEND)


def having(pods: PodSet, record: VersionRecord) -> list[tuple[Pod, ModelStatus]]:
    """Return the pods that have a version, loaded, on its way or being unloaded, and what they say of it."""
    return [
        (pod, model)
        for pod in pods.pods
        if pod.status is not None and pod.unreachable is None
        for model in pod.status.models
        if model.id == record.id and model.state not in ("absent", "failed")
    ]


def page(registry: Registry, limit: int, start: int) -> dict[str, Any]:
    """Read a page of models, of which each is at its default version. Blocks.

    Args:
        registry: What is read.
        limit: How many.
        start: How many are passed over: `nextPageToken` of the page before.
    """
    names = []
    for index, name in enumerate(registry.models()):
        if index >= start + limit:
            following = {"nextPageToken": str(index)}
            break
        if index >= start:
            names.append(name)
    else:
        following = {}
    return {**following, "models": [{"modelName": name, "modelUrl": _default(registry, name)} for name in names]}


def _default(registry: Registry, name: str) -> str:
    version = registry.summary(name).state.labels.get(DEFAULT_LABEL)
    return name if version is None else _url(name, version)


def described(
    record: VersionRecord, serving: ServingSettings, found: Iterable[tuple[Pod, ModelStatus]], *, queue_limit: int
) -> dict[str, Any]:
    """Return what TorchServe tells of a version. Times are in seconds, memory in bytes.

    Args:
        record: The version.
        serving: How it is served now.
        found: Where it is.
        queue_limit: Requests that may wait at this gateway.
    """
    statuses = list(found)
    running = max((model.workers for _, model in statuses), default=0)
    queued = sum(model.requests_queued for _, model in statuses)
    return {
        "modelName": record.name,
        "modelVersion": record.version,
        "modelUrl": _url(record.name, record.version),
        "runtime": "python",
        "minWorkers": serving.min_workers,
        "maxWorkers": serving.max_workers or max(serving.min_workers, running),
        "batchSize": serving.max_batch_rows,
        "maxBatchDelay": 0,
        "responseTimeout": round(serving.predict_timeout_s),
        "startupTimeout": round(serving.load_timeout_s),
        "deviceType": "gpu" if any(model.device_bytes for _, model in statuses) else "cpu",
        "loadedAtStartup": False,
        "workers": [worker for pod, model in statuses for worker in _workers(pod, model)],
        "jobQueueStatus": {"remainingCapacity": max(0, queue_limit - queued), "pendingRequests": queued},
    }


def _workers(pod: Pod, model: ModelStatus) -> list[dict[str, Any]]:
    """Return the workers of a version on a pod; TorchServe says UNLOADING of all that is not ready."""
    return [
        {
            "id": f"{pod.name}-{number}",
            "status": "READY" if model.state == "ready" else "UNLOADING",
            "memoryUsage": model.memory_bytes // model.workers,
            "gpu": model.device_bytes > 0,
            "gpuUsage": "N/A",
        }
        for number in range(model.workers)
    ]


def _url(name: str, version: str) -> str:
    """Return what `url` takes for a version that is published."""
    return f"{name}/{version}"
