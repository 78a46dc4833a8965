"""Which of a prediction's bodies are kept: what its caller sent, and what it got.

Nothing is copied on a request's way. It holds references to bytes that are in memory anyway, and none where they are
not to be kept; what is large, or streams, is not collected for this.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Literal

from marway.serving import ServingSettings

if TYPE_CHECKING:
    from marway_gateway.observe.telemetry import RequestInfo

__all__ = ["Observe", "drawn", "settle_bodies"]

Observe = Literal["off", "metadata", "bodies"]


def drawn(serving: ServingSettings) -> Observe:
    """Return what is kept of one prediction: a rate below 1 leaves some out at random."""
    observe = serving.observe
    if observe != "off" and serving.observe_rate < 1 and random() >= serving.observe_rate:
        return "off"
    return observe


def settle_bodies(info: RequestInfo, max_bytes: int) -> int:
    """Say at a request's end what became of its bodies (`info.bodies`), and let go of what is larger than that.

    An input is kept as well where there is no output: the request failed, or its answer streamed. Returns the bytes of
    what is kept.
    """
    size = 0
    if info.input is not None:
        size = len(info.input)
        if size > max_bytes:
            info.input, info.bodies, size = None, "too_large", 0
    if info.output is not None:
        more = len(info.output)
        if more > max_bytes:
            info.output, info.bodies, more = None, "too_large", 0
        size += more
    if info.bodies == "off":
        info.bodies = "failed" if info.output is None else "kept"
    return size
