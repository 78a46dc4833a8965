"""The boundary to model servers: `Backend` is a kind of them, `ModelServer` is one that runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from marway.deadline import Deadline
from marway.environments.lock import EnvironmentLock
from marway.errors import Overloaded, RuntimeDown, Unavailable
from marway.wire.envelope import Answer, Row
from marway.wire.pods import Remark
from marway.wire.runtime import DeviceMemory, Mode, WorkerDeaths
from marway_sidecar.settings import SidecarSettings

__all__ = [
    "Backend",
    "Busy",
    "Description",
    "ModelServer",
    "NotLoaded",
    "NotSent",
    "ServedModel",
    "ServerInfo",
    "ServerStatus",
    "StackedAnswer",
    "WorkerDied",
    "WorkerStatus",
]


class Busy(Overloaded):
    """The server is well and takes no more now: nothing of the request was run."""


class NotLoaded(Unavailable):
    """The server does not know the version: load it (again) and repeat."""


class NotSent(RuntimeDown):
    """The server took no connection, so nothing of the request reached it."""


class WorkerDied(Unavailable):
    """The worker died with the request in it: another may try it once."""


@dataclass(frozen=True, slots=True)
class StackedAnswer(Answer):
    """The answer to a row that its backend gave to the server in one call with others, of so many rows."""

    batch_rows: int = 1


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version as the model server is to know it.

    Attributes:
        server_name: Its name there, its own (`marway.refs.server_name`).
        name, version: What people call it, for messages.
        archive: The archive, in a directory that the server reads.
        workers: Worker processes to start with.
        max_workers: The most that it may have; an archive that asks for more by itself is refused.
        load_timeout_s: How long a worker may take to come up.
        predict_timeout_s: How long a worker may take for one call before the server restarts it.
        protocol: How to speak to a server that Marway's runtime did not start (`ServingSettings.protocol`).
        streaming: Whether its handler sends answers in pieces.
        environment: What it requires and the server is to install; its wheels are beside the archive.
        golden: Whether it has golden answers, which show what a way of starting its workers would break.
        batch_rows: Most rows in one call, where the server makes the batches itself because Marway's runtime did not
            start it.
        retry_rows: Whether rows of a call that failed as a whole may run again (`ServingSettings.retry_rows`).
        sequences: Whether its handler keeps sequences, which it does in one worker.
        calls_per_worker: How many calls a worker takes at once, as the server said when it was loaded. Where it is more
            than one, each has one row, and one that nobody waits for any more is given up.
        in_pieces, answer_within_s, workers_max, scales: What the server said of them then (`Description`).
    """

    server_name: str
    name: str
    version: str
    archive: Path
    workers: int
    load_timeout_s: float
    predict_timeout_s: float
    protocol: Literal["auto", "grpc", "rest"] = "auto"
    streaming: bool = False
    batch_rows: int = 1
    retry_rows: bool = True
    max_workers: int | None = None
    golden: bool = False
    sequences: bool = False
    calls_per_worker: int = 1
    environment: EnvironmentLock | None = None
    in_pieces: bool = False
    answer_within_s: float | None = None
    workers_max: int | None = None
    scales: bool = True

    def as_described(self, found: Description) -> ServedModel:
        """Return it with what the server says of how it is to be called."""
        facts = ("calls_per_worker", "in_pieces", "answer_within_s", "workers_max", "scales")
        said: dict[str, Any] = {name: getattr(found, name) for name in facts}
        if self.sequences:
            said |= {"workers_max": 1, "scales": False}
        return replace(self, streaming=self.streaming or found.in_pieces, **said)


@dataclass(frozen=True, slots=True)
class Description:
    """What the server says about a version that it has.

    Attributes:
        calls_per_worker: How many calls a worker takes at once.
        in_pieces: Whether every answer comes in pieces, whatever the version's record says.
        answer_within_s: How long one call may take before its worker is ended, where the archive says it.
        workers_max: The most workers that the server keeps going at once; None for any number.
        scales: Whether the number of workers is ours to set; a server that keeps its own has one, as far as we know.
    """

    version: str
    ready_workers: int
    workers: int
    calls_per_worker: int = 1
    in_pieces: bool = False
    answer_within_s: float | None = None
    workers_max: int | None = None
    scales: bool = True


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker process of the server.

    Attributes:
        server_name: The version it serves, by its name there; None before it was told.
        mode: How it was started (`marway.wire.runtime.Mode`).
        reason: Why it is plain; of a forked one, what there is to know about it, if anything.
        private_bytes: Memory that is its alone; of a server that Marway did not start, what the server says it takes.
        copied_bytes: Of that, what it shared with its version's other workers until it wrote to it.
        device, device_bytes: The GPU that it was given, and what it takes there; None when that is not known.
    """

    pid: int
    server_name: str | None
    mode: Mode
    reason: str
    private_bytes: int
    copied_bytes: int = 0
    device: int | None = None
    device_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server as a whole: every version it has by its name there, its workers, and how many died if that is known.

    Attributes:
        weights: By a version's name there, the memory that its workers share, in bytes, kept also while it has none.
        devices: The GPUs that its workers may use.
    """

    server_names: frozenset[str]
    workers: tuple[WorkerStatus, ...]
    base_bytes: int
    deaths: tuple[WorkerDeaths, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    devices: tuple[DeviceMemory, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What is known of a model server that is up.

    Attributes:
        boot_id: New with every start, as far as that can be told: what was loaded under another one is gone.
        versions: Of the server under its backend's name, and of what matters inside it, such as `torch` and `python`.
        memory_limit_bytes: What it and its workers may take together; None when that is not known.
        cpus: Processors that its workers may use; None when that is not known.
        environments_for: What it builds environments for; None when it builds none.
        versions_max: Most versions that it may have at once, beside what memory allows; None for any number.
    """

    boot_id: str
    versions: Mapping[str, str] = field(default_factory=dict)
    memory_limit_bytes: int | None = None
    cpus: int | None = None
    environments_for: str | None = None
    versions_max: int | None = None


class ModelServer(Protocol):
    """A running model server. Every method raises `RuntimeDown` when the server does not answer."""

    @property
    def batches(self) -> bool:
        """Whether one call may carry rows of several requests, each with its own headers in and out."""

    @property
    def serves(self) -> frozenset[str]:
        """The backends, as records name them, whose archives it loads."""

    @property
    def info(self) -> ServerInfo:
        """What is known of it; complete once `is_same` has returned."""

    async def is_same(self, *, timeout_s: float) -> bool:
        """Return whether it is still the server that it was: False when it was restarted and lost what was loaded.

        Raises:
            RuntimeDown: It does not answer within ``timeout_s``.
        """

    async def load(self, model: ServedModel) -> Description:
        """Make a version servable and return what the server then says about it; a version that it has is kept.

        Raises:
            LoadFailed: It cannot be loaded; the message gives the reason, and nothing of it is left in the server.
        """

    async def unload(self, model: ServedModel) -> None:
        """Remove a version that has no request in flight; one that is not there is no error."""

    async def scale(self, model: ServedModel, workers: int) -> Description:
        """Set the number of worker processes and return what the server then says; only where it `scales`."""

    async def describe(self, model: ServedModel) -> Description | None:
        """Return what the server says about a version, or None when it does not have it."""

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Return the answers to ``rows``, in their order.

        Raises:
            NotLoaded: The server does not have the version (any more); nothing was run.
            Overloaded: Its queue is full or no worker is up; nothing was run.
            DeadlineExceeded: The deadline passed; the work may still be going on.
            ModelError: The call failed as a whole in a way that is the request's own fault.
            WorkerDied: The request may have been running, and may be what killed it.
        """

    def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to ``row`` as the handler sends them; raises as `predict` does.

        For versions that are declared streaming, and for requests that ask for pieces. Each piece is an `Answer`;
        status, headers and content type of the first stand for the whole. A piece of kind "error" ends it.
        """

    async def status(self) -> ServerStatus:
        """Return what the server really has, and what its workers take."""

    async def aclose(self) -> None:
        """Close connections to the server; the server is left as it is."""


class Backend(ABC):
    """A kind of model server. The class is an entry point of the group `marway.backends`, whose name is the backend's.

    Args:
        settings: Of the sidecar.

    Attributes:
        name: Its name, as records, pods and proofs have it.
        serves: The backends of records whose archives its servers load; its own at least.
        probe_interval_s, probe_timeout_s: How often its server is asked whether it answers, and how long that may take.
        tested: Versions of its servers that Marway's tests run, under their names in `ServerInfo.versions`.
        only_looks: Whether clients are for `marway doctor`, and change nothing, nor remove what a sidecar left.
        directory: What it shares with its server and no other sidecar may use; None for nothing.
        by_runtime: Whether Marway's runtime starts its server, whose engine has the backend's name; else others do.
    """

    serves: frozenset[str]
    tested: Mapping[str, str] = {}
    directory: Path | None = None
    by_runtime = only_looks = False

    def __init__(self, settings: SidecarSettings) -> None:
        self.name = settings.backend
        self.settings = settings
        self.probe_interval_s = settings.runtime_probe_interval_s
        self.probe_timeout_s = settings.runtime_probe_timeout_s

    def stamp(self) -> Hashable:
        """Return what changes when another server may be there; it is asked for often, so it costs at most a `stat`."""
        return None

    @abstractmethod
    def connect(self) -> ModelServer | None:
        """Return a client of the server that there should be now, without waiting for it; None when there is none."""

    @abstractmethod
    def trouble(self, *, found: bool) -> str:
        """Return in a sentence why no server is up: one was ``found`` that does not answer, or there is none."""

    async def examine(self, server: ModelServer) -> Sequence[Remark]:
        """Return what `marway doctor` is to say of a server that answers, beside its version; nothing is changed."""
        return ()
