"""One predict request: what is known of it, and what a gateway is told when it fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

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
    clip,
)
from marway.wire.headers import CLIENT, Outcome
from marway.wire.request import read_ids
from marway_http.channel import Channel
from marway_sidecar.backends.base import WorkerDied

__all__ = ["Call", "log_failure", "outcome_of"]

logger = logging.getLogger(__name__)

_DETAIL_MAX: Final = 1000
_CALLERS_MATTER: Final = frozenset({Outcome.REFUSED, Outcome.NOT_ACCEPTED})
"""Outcomes that say nothing of this pod or its models; the gateway's access log has them all."""


class Call:
    """One request: its headers and ids, its client, and whether the model server was given it.

    Args:
        headers: Names in lower case.
        named: What the path names: the model, and a version or a label where it has one.
        client: The peer's address, or "".
        channel: Where the answer goes.

    Attributes:
        accepted: Whether the model server was given it.
        body: The whole body, where it came before its request was begun.
    """

    __slots__ = ("accepted", "body", "channel", "client", "headers", "ids", "named")

    def __init__(
        self, headers: Mapping[str, str], named: tuple[str, str | None], client: str, channel: Channel
    ) -> None:
        self.headers = headers
        self.named = named
        self.client = client
        self.channel = channel
        self.ids = read_ids(headers.get)
        self.accepted = False
        self.body = channel.body

    @property
    def group(self) -> str:
        """Whose turn it is to be in a queue: the group that the caller named, else the caller by a gateway's word."""
        group = self.ids.group_id or self.headers.get(CLIENT)
        return group if group is not None else self.client

    @property
    def length(self) -> int | None:
        """Bytes of the body, where they are known."""
        if self.body is not None:
            return len(self.body)
        text = self.headers.get("content-length")
        return int(text) if text is not None else None


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


def log_failure(call: Call, error: MarwayError, *, outcome: str, rows: int | None = None) -> None:
    """Log a prediction that failed here, with the id by which its caller and the handler's log know it.

    Args:
        call: The request.
        error: Why it failed.
        outcome: As `outcome_of` says; what was refused, or may go to another pod, is not logged.
        rows: How many of the request's rows failed so, where not all did.
    """
    if outcome in _CALLERS_MATTER:
        return
    fields = {
        "request_id": call.ids.request_id,
        "group_id": call.ids.group_id,
        "model": error.model,
        "version": error.version,
        "error": error.code,
        "outcome": outcome,
        "rows": rows,
    }
    logger.error("prediction failed: %s", clip(error.message, _DETAIL_MAX), extra={"fields": fields})
