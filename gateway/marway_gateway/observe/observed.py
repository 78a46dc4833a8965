"""What is counted of a request beside its time, and who keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from marway_gateway.observe.telemetry import RequestInfo

__all__ = ["ObservationSink", "Tokens"]


class Tokens(NamedTuple):
    """How many tokens a language model read and wrote for one request, by its server's word."""

    prompt: int
    completion: int


class ObservationSink(Protocol):
    """Keeps what was predicted."""

    def add(self, info: RequestInfo, duration_s: float) -> None:
        """Take in a prediction that ended, at once and without waiting for anything."""
