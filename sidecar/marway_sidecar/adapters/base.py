"""The boundary to a model server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from marway.deadline import Deadline
from marway.errors import Unavailable
from marway.wire.envelope import Answer, Row

__all__ = ["Description", "ModelServer", "NotLoaded", "ServedModel", "WorkerDied"]


class NotLoaded(Unavailable):
    """The server does not know the version: load it (again) and repeat."""


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
        load_timeout_s: How long a worker may take to come up.
        predict_timeout_s: How long a worker may take for one call before the server restarts it.
    """

    server_name: str
    name: str
    version: str
    archive: Path
    workers: int
    load_timeout_s: float
    predict_timeout_s: float


@dataclass(frozen=True, slots=True)
class Description:
    """What the server says about a version that it has."""

    version: str
    ready_workers: int
    workers: int


class ModelServer(Protocol):
    """A running model server. Every method raises `RuntimeDown` when the server does not answer."""

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

    async def aclose(self) -> None:
        """Close connections to the server; the server is left as it is."""
