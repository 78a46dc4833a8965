"""What is counted of a request beside its time, and who keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from marway_gateway.observe.telemetry import RequestInfo

__all__ = ["ObservationSink", "RequestSpans", "Tokens"]


class Tokens(NamedTuple):
    """How many tokens a language model read and wrote for one request, by its server's word."""

    prompt: int
    completion: int


class ObservationSink(Protocol):
    """Keeps what was predicted."""

    def add(self, info: RequestInfo, duration_s: float) -> None:
        """Take in a prediction that ended, at once and without waiting for anything."""


class RequestSpans(Protocol):
    """Tells a tracing system of predictions."""

    def begin(self, info: RequestInfo) -> None:
        """Begin a prediction's span, which is what pods are told of from now on."""

    def end(self, info: RequestInfo) -> None:
        """Say what became of it."""

    def node(self, info: RequestInfo, node: str, seconds: float, outcome: str) -> None:
        """Tell of a node of a graph that ended now, within the graph's own span."""
