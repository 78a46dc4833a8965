"""What is taken of a request at its end: a tuple, made in one call, as this is done for every prediction."""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Protocol

__all__ = ["NAMES", "ROW", "Ended", "Row", "row_of"]

Row = tuple[Any, ...]


class Ended(Protocol):
    """A prediction that ended, of which something is to be kept: a `RequestInfo`, with all that `ROW` asks it for."""

    @property
    def observe(self) -> str:
        """`metadata` or `bodies`."""

    @property
    def input(self) -> bytes | None:
        """What the caller sent, if that is kept."""

    @property
    def output(self) -> bytes | None:
        """What the caller got, if that is kept."""


NAMES: Final = (
    *("version", "label", "role", "surface", "client", "pod", "status", "outcome", "error", "cache", "bodies"),
    *("input_type", "output_type"),
)
"""Columns that have few different values."""
_OF_INFO: Final = (
    *("model", "serving.observe_redact", "serving.observe_rate"),
    *("prediction_id", "request_id", "group_id"),
    *("version", "label", "role", "surface", "client", "pod", "status", "outcome", "error", "cache"),
    *("attempts", "resolve_s", "pod_s", "queue_s", "model_s", "batch_rows", "finite"),
    *("request_bytes", "response_bytes", "tokens"),
)
_BODIES: Final = ("bodies", "input_type", "input", "output_type", "output")
ROW: Final = (*(name.removeprefix("serving.observe_") for name in _OF_INFO), *_BODIES, "duration_s", "at")
"""What a row has, in this order: the columns of observations, `model`, `redact`, and `tokens` for two of them."""
_of_info: Final[Callable[[Ended], Row]] = attrgetter(*_OF_INFO)
_of_bodies: Final[Callable[[Ended], Row]] = attrgetter(*_BODIES)


def row_of(info: Ended, duration_s: float) -> Row:
    """Return the row of a prediction that ended just now and was resolved to a version."""
    if info.observe == "bodies":  # asking for content types costs
        return (*_of_info(info), *_of_bodies(info), duration_s, time.time())
    return (*_of_info(info), "off", None, None, None, None, duration_s, time.time())
