"""Requests that give way to all others, because their callers say so."""

from __future__ import annotations

from marway.errors import InvalidRequest, clip
from marway.wire import headers as wire
from marway_gateway.observe.telemetry import RequestInfo

__all__ = ["gives_way"]


def gives_way(info: RequestInfo, priority: str, to_pod: dict[str, str]) -> None:
    """Have a request give way to all others, as its caller asks with `X-Marway-Priority`.

    Raises:
        InvalidRequest: The priority is none that callers may ask for.
    """
    if priority != "batch":
        raise InvalidRequest(
            f"X-Marway-Priority is {clip(priority, 40)!r}: a request may ask for batch, which gives way to all others, "
            "or leave it out"
        )
    info.role = to_pod[wire.PRIORITY] = "batch"
