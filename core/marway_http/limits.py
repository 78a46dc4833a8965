"""What the clients of one port may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from marway_http.channel import Headers

__all__ = ["ConnectionLimits", "Upgrade"]


class Upgrade(Protocol):
    """Another protocol that a connection may change to."""

    def asked(self, method: bytes, url: bytes, headers: Headers) -> bool:
        """Return whether a request asks for it, and gets it."""

    def change(self, transport: asyncio.Transport, server_state: Any, came: bytes) -> None:
        """Go on in it; ``came`` is its beginning."""


@dataclass(slots=True)
class ConnectionLimits:
    """What one port's clients may do; times in seconds.

    Attributes:
        header_timeout_s: For a request's headers.
        body_timeout_s: For its body: what it may lag behind ``body_min_rate``.
        body_min_rate: Bytes a second.
        max_connections: How many may be connected; None for any number.
        write_timeout_s: For reading on when an answer fills the connection; None for ever.
        piece_bytes: The least that the application is given of a body, unless it is the last.
        kept_bytes: Free memory that the process keeps for the next large body.
        refusal_headers: Lines that answers have which the connection gives by itself.
        cors: Gives the headers by which browsers let other origins' pages read answers, from those of a request.
        upgrade: What a connection may change to.
        leaving: Whether each answer should be its connection's last.
    """

    header_timeout_s: float
    body_timeout_s: float
    body_min_rate: int
    max_connections: int | None = None
    write_timeout_s: float | None = None
    piece_bytes: int = 1
    kept_bytes: int = 8 * 1024 * 1024
    refusal_headers: bytes = b""
    cors: Callable[[Headers], Headers] | None = None
    upgrade: Upgrade | None = None
    leaving: bool = False
