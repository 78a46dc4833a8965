"""What is taken of a request at its end: a tuple, made in one call, as this is done for every prediction."""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from marway_gateway.observe.telemetry import RequestInfo

__all__ = ["NAMES", "ROW", "ROW_BYTES", "Row", "row_of"]

Row = tuple[Any, ...]

ROW_BYTES: Final = 512
"""What a row without bodies is taken to need in memory, in bytes."""
NAMES: Final = (
    *("version", "label", "role", "surface", "client", "pod", "status", "outcome", "error", "cache", "bodies"),
    *("input_type", "output_type", "node"),
)
"""Columns that have few different values."""
_OF_INFO: Final = (
    *("model", "serving.observe_redact", "serving.observe_rate", "serving.quality"),
    *("prediction_id", "request_id", "group_id", "graph", "node"),
    *("version", "label", "role", "surface", "client", "pod", "status", "outcome", "error", "cache"),
    *("attempts", "resolve_s", "pod_s", "run"),
    *("request_bytes", "response_bytes", "tokens"),
)
_BODIES: Final = ("bodies", "input_type", "input", "output_type", "output")
ROW: Final = (
    *(name.removeprefix("serving.").removeprefix("observe_") for name in _OF_INFO),
    *(*_BODIES, "duration_s", "at", "size"),
)
"""What a row has, in this order: the columns of observations, `model`, `redact`, `quality` (its rules), `tokens` and
`run` for several of them, and `size`: the bytes of memory that it is taken to need."""
_of_info: Final[Callable[[RequestInfo], Row]] = attrgetter(*_OF_INFO)
_of_bodies: Final[Callable[[RequestInfo], Row]] = attrgetter(*_BODIES)


def row_of(info: RequestInfo, duration_s: float, size: int) -> Row:
    """Return the row of a prediction that ended just now and was resolved to a version."""
    if info.observe == "bodies":  # asking for content types costs
        return _of_info(info) + _of_bodies(info) + (duration_s, time.time(), size)
    return _of_info(info) + ("off", None, None, None, None, duration_s, time.time(), size)
