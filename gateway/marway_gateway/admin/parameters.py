"""What admin routes take beside their bodies: the model and its version, who asks, and until when."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Path, Query, Request

from marway.deadline import Deadline
from marway.errors import clip
from marway.wire.headers import REQUEST_TIMEOUT_MS
from marway.wire.request import timeout_of
from marway_gateway.access.authentication import token_owner
from marway_gateway.settings import GatewaySettings

__all__ = ["Caller", "CallerOf", "Model", "NoteOf", "TimeoutOf", "caller_of", "deadline_of", "named_caller"]

NoteOf = Annotated[str | None, Query(max_length=1000, description="Why, for the history.")]
Model = Annotated[str, Path(description="A model's name.", examples=["intent"])]
_NAME_MAX: Final = 200
_UNKNOWN: Final = f"gateway@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        by: The name for the history: that of the token, else what the caller calls itself, else this gateway.
        op_id: The caller's own name for the change, or None.
    """

    by: str
    op_id: str | None


def named_caller(owner: str | None, called: str | None, *, op_id: str | None = None) -> Caller:
    """Return who asks.

    Args:
        owner: The name of the token that was sent, which wins.
        called: What the caller calls itself.
        op_id: The caller's own name for the change.
    """
    given = (called or "").strip()
    return Caller(owner or clip(given if given.isprintable() else "", _NAME_MAX) or _UNKNOWN, op_id)


def caller_of(request: Request) -> Caller:
    """Return who sends a request, of a route that is not FastAPI's."""
    return named_caller(token_owner(request.scope), request.headers.get("from"))


def _caller(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Names this change, as its `op_id` in the history: a change that was made under it is not made "
            "again, and its entry is the answer. 1 to 64 letters, digits, '_' or '-'.",
            max_length=64,
            examples=["01JD0Z6Y8Q6V5T4S3R2P1N0M9K"],
        ),
    ] = None,
    from_: Annotated[
        str | None,
        Header(
            alias="From",
            description="Who asks, for the history, such as `ana@laptop` (RFC 9110 §10.1.2). A token with a name wins.",
            max_length=_NAME_MAX,
            examples=["ana@laptop"],
        ),
    ] = None,
) -> Caller:
    return named_caller(token_owner(request.scope), from_, op_id=idempotency_key)


CallerOf = Annotated[Caller, Depends(_caller)]
"""The parameter of a route that changes something."""


def _timeout(
    request: Request,
    x_request_timeout_ms: Annotated[
        int | None,
        Header(
            description="Deadline in milliseconds; by default what the version's load may take.", ge=1, examples=[60000]
        ),
    ] = None,
) -> str | None:
    return request.headers.get(REQUEST_TIMEOUT_MS)


TimeoutOf = Annotated[str | None, Depends(_timeout)]
"""The parameter of a route that may take long."""


def deadline_of(timeout: str | None, settings: GatewaySettings) -> Deadline | None:
    """Return the deadline that a request asks for, or None.

    Raises:
        InvalidRequest: It is no positive number of milliseconds.
    """
    longest_s = settings.max_timeout_s
    return None if timeout is None else Deadline.after(timeout_of(timeout, default_s=longest_s, max_s=longest_s))
