"""The boundary to a model server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from marway.deadline import Deadline
from marway.errors import RuntimeDown, Unavailable
from marway.wire.envelope import Answer, Row
from marway.wire.workers import Mode, WorkerDeaths

__all__ = [
    "Description",
    "ModelServer",
    "NotLoaded",
    "NotSent",
    "ServedModel",
    "ServerStatus",
    "WorkerDied",
    "WorkerStatus",
]


class NotLoaded(Unavailable):
    """The server does not know the version: load it (again) and repeat."""


class NotSent(RuntimeDown):
    """The server took no connection, so nothing of the request reached it."""


class WorkerDied(Unavailable):
    """The worker died with the request in it: another may try it once."""


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
        batch_rows: Most rows in one call, where the server makes the batches itself because Marway's runtime did not
            start it.
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
    max_workers: int | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What the server says about a version that it has."""

    version: str
    ready_workers: int
    workers: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker process of the server.

    Attributes:
        server_name: The version it serves, by its name there; None before it was told.
        mode: How it was started (`marway.wire.workers.Mode`).
        reason: Why it is plain.
        private_bytes: Memory that is its alone; of a server that Marway did not start, what the server says it takes.
    """

    pid: int
    server_name: str | None
    mode: Mode
    reason: str
    private_bytes: int


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server as a whole: every version it has by its name there, its workers, and how many died if that is known."""

    server_names: frozenset[str]
    workers: tuple[WorkerStatus, ...]
    base_bytes: int
    deaths: tuple[WorkerDeaths, ...] = ()


class ModelServer(Protocol):
    """A running model server. Every method raises `RuntimeDown` when the server does not answer."""

    @property
    def batches(self) -> bool:
        """Whether one call may carry rows of several requests, each with its own headers in and out."""

    async def load(self, model: ServedModel) -> Description:
        """Make a version servable and return what the server then says about it; a version that it has is kept.

        Raises:
            LoadFailed: It cannot be loaded; the message gives the reason, and nothing of it is left in the server.
        """

    async def unload(self, model: ServedModel) -> None:
        """Remove a version that has no request in flight; one that is not there is no error."""

    async def scale(self, model: ServedModel, workers: int) -> Description:
        """Set the number of worker processes and return what the server then says."""

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

    def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncIterator[Answer]:
        """Yield the pieces of the answer to ``row`` as the handler sends them; raises as `predict` does.

        Only for versions that are declared streaming. Each piece is an `Answer`; status, headers and content type of
        the first stand for the whole. A piece of kind "error" ends it.
        """

    async def status(self) -> ServerStatus:
        """Return what the server really has, and what its workers take."""

    async def aclose(self) -> None:
        """Close connections to the server; the server is left as it is."""
