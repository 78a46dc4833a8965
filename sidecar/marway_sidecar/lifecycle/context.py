"""What all versions of one server instance share."""

from __future__ import annotations

from dataclasses import dataclass

from marway_sidecar.backends.base import ModelServer
from marway_sidecar.changes import Changes
from marway_sidecar.memory.budget import Memory
from marway_sidecar.memory.estimates import Estimates
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.settings import SidecarSettings

__all__ = ["Context"]


@dataclass(slots=True)
class Context:
    """The parts around a version.

    Attributes:
        server: The model server.
        cpus: Most workers of a version that does not say.
        refusing: Whether loads are refused, because the pod stops.
    """

    server: ModelServer
    settings: SidecarSettings
    cpus: int
    memory: Memory
    estimates: Estimates
    metrics: SidecarMetrics
    changes: Changes
    refusing: bool
