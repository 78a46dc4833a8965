"""What a sidecar says about itself and about the versions it has: `GET /status` and `GET /models`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["ModelStatus", "PodStatus", "State"]

State = Literal["absent", "fetching", "loading", "ready", "draining", "failed"]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ModelStatus(_Wire):
    """One version on one pod. Times are seconds; `last_used_at` is None until the first request."""

    id: str
    name: str
    version: str
    state: State
    workers: int = 0
    requests_in_flight: int = 0
    load_duration_s: float | None = None
    last_used_at: datetime | None = None
    failure: str | None = None
    retry_after_s: float | None = None


class PodStatus(_Wire):
    """One pod: who it is, what runs on it, whether it takes requests."""

    name: str
    boot_id: str
    """New with every start of the sidecar or of its model server."""
    backend: str
    pool: str | None = None
    device: str = "cpu"
    python_version: str | None = None
    torch_version: str | None = None
    server_version: str | None = None
    ready: bool
    draining: bool = False
    requests_in_flight: int = 0
    models: tuple[ModelStatus, ...] = ()
