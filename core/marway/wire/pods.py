"""What a sidecar says about itself and about the versions it has.

`GET /status` and `GET /models` answer once; `GET /watch` goes on saying what changed, so that gateways need not ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, NamedTuple

from marway.stored import Frozen
from marway.wire.runtime import DeviceMemory

__all__ = [
    "WATCH_CONTENT_TYPE",
    "WATCH_HEARTBEAT_S",
    "HandlerLine",
    "HandlerLines",
    "LoadReport",
    "ModelStatus",
    "PodEvent",
    "PodStatus",
    "Remark",
    "State",
    "UnloadReason",
]

State = Literal["absent", "fetching", "loading", "ready", "draining", "failed"]

UnloadReason = Literal["asked", "idle", "memory"]
"""Why a version was unloaded: somebody asked, nobody had for long, or others needed its memory."""

WATCH_CONTENT_TYPE: Final = "application/x-ndjson"
WATCH_HEARTBEAT_S: Final = 1.0
"""A watch says something at least this often, an empty event if nothing changed: silence means trouble."""


class ModelStatus(Frozen):
    """One version on one pod. Times are seconds, sizes bytes; `last_used_at` is None until the first request.

    A version that is `ready` with no workers is registered in the model server and starts one with its next request.
    """

    id: str
    name: str
    version: str
    state: State
    workers: int = 0
    requests_in_flight: int = 0
    requests_queued: int = 0
    memory_bytes: int = 0
    """What it counts for in the budget: measured when its workers are up, else reserved."""
    pinned: bool = False
    parked: bool = False
    """Whether its workers are gone and the weights that they shared are kept: the next request has one forked."""
    weights_bytes: int = 0
    """Of its memory, what its workers share; 0 where each has loaded the version by itself."""
    copied_bytes: int = 0
    """Of its memory, what its workers shared until they wrote to it."""
    device_bytes: int = 0
    """What it counts for of the pod's GPUs: as measured, or reserved for workers that are starting."""
    sequences: int = 0
    """Sequences of requests whose state its worker keeps."""
    load_duration_s: float | None = None
    last_used_at: datetime | None = None
    failures: int = 0
    failure: str | None = None
    retry_after_s: float | None = None
    unloaded_for: UnloadReason | None = None
    """Why it was unloaded, while it is absent; None where it was not, or the model server lost it."""
    unloaded_at: datetime | None = None


class PodStatus(Frozen):
    """One pod: who it is, what runs on it, whether it takes requests."""

    name: str
    boot_id: str
    """New with every start of the sidecar or of its model server."""
    backend: str
    """The kind of its model server: what versions may ask for as their engine."""
    serves: tuple[str, ...] = ()
    """What records may name as their backend to be served here; from an older sidecar nothing: its own alone."""
    pool: str | None = None
    device: str = "cpu"
    python_version: str | None = None
    torch_version: str | None = None
    server_version: str | None = None
    ready: bool
    draining: bool = False
    requests_in_flight: int = 0
    memory_used_bytes: int = 0
    memory_budget_bytes: int | None = None
    devices: tuple[DeviceMemory, ...] = ()
    """The GPUs that its workers may use, as they were measured last."""
    models: tuple[ModelStatus, ...] = ()

    def may_serve(self, backend: str) -> bool:
        """Return whether versions whose records name ``backend`` are served here."""
        return backend == self.backend or backend in self.serves


class PodEvent(Frozen):
    """One line of `GET /watch`.

    The first holds `pod` whole. Each later one holds what changed since: `models` with the new status of each version
    whose state, workers, memory or failure changed, `removed` the ids of those that are gone, and `pod`, whole again,
    when anything else about the pod changed. One with nothing in it is a heartbeat. Requests in flight change all the
    time and are no reason for an event.
    """

    pod: PodStatus | None = None
    models: tuple[ModelStatus, ...] = ()
    removed: tuple[str, ...] = ()


class Remark(NamedTuple):
    """What whoever sets a pod up is to know of its model server: how bad it is, what was found, what to do about it."""

    level: Literal["ok", "warning", "problem"]
    found: str
    advice: str = ""


class LoadReport(Frozen):
    """What came of a load that was asked for: `POST /models/{model}/{version or label}/load`.

    Attributes:
        model: The version as it is now.
        golden_sha256: The golden answers that were compared; None when the version has none.
        examples: How many of them.
        differences: A line for each example that was answered otherwise; none means that all were reproduced.
        duration_s: From the request to the last answer, in seconds.
        server: Which model server, such as `torchserve`.
        server_versions: Its version and those of what matters inside it, such as torch and Python.
    """

    model: ModelStatus
    golden_sha256: str | None = None
    examples: int = 0
    differences: tuple[str, ...] = ()
    duration_s: float
    server: str
    server_versions: Mapping[str, str] = {}


class HandlerLine(Frozen):
    """One thing that a version's handler printed, logged or raised, as `marway logs` shows it.

    Attributes:
        at: When.
        level: debug, info, warning, error or critical.
        text: What it wrote.
        worker: Which of the version's workers, by its port.
        request_ids: The requests that it was answering, as far as that is known.
        traceback: Of the exception that the line is about.
        reason: In one line, why the handler cannot be loaded.
        logger: Whose line it is, where it came by Python's logging.
    """

    at: datetime
    level: str
    text: str
    worker: int
    request_ids: tuple[str, ...] = ()
    traceback: str | None = None
    reason: str | None = None
    logger: str | None = None


class HandlerLines(Frozen):
    """The newest lines of a version's handler on one pod, oldest first."""

    lines: tuple[HandlerLine, ...] = ()
