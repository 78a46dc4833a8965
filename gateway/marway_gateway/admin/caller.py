"""Who asks for a change, and under which op_id: read from a request's headers in one place."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Request

from marway.errors import clip
from marway_gateway.access.authentication import token_owner

__all__ = ["Caller", "CallerOf"]

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
    said = (from_ or "").strip()
    by = token_owner(request.scope) or clip(said if said.isprintable() else "", _NAME_MAX) or _UNKNOWN
    return Caller(by, idempotency_key)


CallerOf = Annotated[Caller, Depends(_caller)]
"""The parameter of a route that changes something."""
