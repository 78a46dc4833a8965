"""Bodies of the Open Inference Protocol become plain JSON before they wait to be written.

Messages and binary tensors can neither be redacted by fields nor be looked into by whoever judges quality or drift.
This runs in the observations' thread, and for bodies alone that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from marway_gateway.observe.observations.rows import ROW, Row
from marway_gateway.observe.open_inference_json import plain_request, plain_response
from marway_http.tensors.rows import JSON

__all__ = ["is_open_inference", "readable"]

_PLACE: Final = {name: place for place, name in enumerate(ROW)}
_SURFACE, _SIZE = _PLACE["surface"], _PLACE["size"]
_SURFACES: Final = frozenset({"open_inference", "open_inference_grpc"})
_SIDES: Final[tuple[tuple[int, int, Callable[[bytes, str], bytes | None]], ...]] = (
    (_PLACE["input"], _PLACE["input_type"], plain_request),
    (_PLACE["output"], _PLACE["output_type"], plain_response),
)


def is_open_inference(row: Row) -> bool:
    """Return whether a row is of that protocol."""
    return row[_SURFACE] in _SURFACES


def readable(row: Row) -> Row:
    """Return a row whose bodies are JSON, where they can be; `size` counts what they have grown."""
    left = list(row)
    for body, kind, plain in _SIDES:
        if row[body] is None or row[kind] is None:
            continue
        text = plain(row[body], row[kind])
        if text is not None:
            left[body], left[kind] = text, JSON
            left[_SIZE] += len(text) - len(row[body])
    return tuple(left)
