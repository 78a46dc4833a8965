"""One predict request: what is known of it, and what a gateway is told when it fails."""

from __future__ import annotations

from starlette.types import Scope

from marway.errors import (
    ArchiveCorrupt,
    DeadlineExceeded,
    Draining,
    InvalidInput,
    LoadFailed,
    MarwayError,
    ModelError,
    ModelLoading,
    NotFound,
    Overloaded,
    RuntimeDown,
    Unavailable,
)
from marway.wire.headers import CLIENT, Outcome
from marway.wire.request import read_ids
from marway_sidecar.adapters.base import WorkerDied
from marway_sidecar.http import Channel

__all__ = ["Call", "outcome_of"]


class Call:
    """One request: its headers and ids, its client, and whether the model server was given it."""

    __slots__ = ("accepted", "channel", "headers", "ids", "scope")

    def __init__(self, scope: Scope, channel: Channel) -> None:
        self.scope = scope
        self.channel = channel
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.ids = read_ids(self.headers.get)
        self.accepted = False

    @property
    def group(self) -> str:
        """Whose turn it is to be in a queue: the group that the caller named, else the caller by a gateway's word."""
        group = self.ids.group_id or self.headers.get(CLIENT)
        if group is not None:
            return group
        client: tuple[str, int] | None = self.scope["client"]
        return client[0] if client is not None else ""


def outcome_of(error: MarwayError, *, accepted: bool) -> str:
    """Return what a gateway is told about a failed request.

    Args:
        error: Why it failed.
        accepted: Whether the request went to the model server.
    """
    if isinstance(error, ModelError):
        return Outcome.MODEL_ERROR
    if isinstance(error, (InvalidInput, NotFound)):
        return Outcome.REFUSED
    if isinstance(error, (RuntimeDown, Draining)):
        # A pod that stops with the request in hand is lost to it as one whose server went away.
        return Outcome.RUNTIME_DOWN if accepted else Outcome.NOT_ACCEPTED
    if isinstance(error, (LoadFailed, ArchiveCorrupt, DeadlineExceeded, ModelLoading)):
        return Outcome.FAILED
    if isinstance(error, WorkerDied):
        return Outcome.WORKER_DIED
    if isinstance(error, Overloaded) or (isinstance(error, Unavailable) and not accepted):
        return Outcome.NOT_ACCEPTED  # a full queue in the model server: nothing was run
    return Outcome.FAILED
