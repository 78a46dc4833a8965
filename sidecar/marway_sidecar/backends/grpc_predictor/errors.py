"""What a predictor's failures mean: one table, that of docs/grpc-predictor.md."""

from __future__ import annotations

from typing import Final

import grpc

from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError, ModelError, RuntimeDown, clip
from marway_sidecar.backends.base import Busy, NotLoaded, NotSent

__all__ = ["error_of"]

_Code = grpc.StatusCode
_TEXT_MAX: Final = 300
_NO_CONNECTION: Final = ("failed to connect", "connection refused")
_STATUS: Final = {
    _Code.ABORTED: 409,
    _Code.ALREADY_EXISTS: 409,
    _Code.FAILED_PRECONDITION: 400,
    _Code.INVALID_ARGUMENT: 400,
    _Code.OUT_OF_RANGE: 400,
    _Code.PERMISSION_DENIED: 403,
    _Code.UNAUTHENTICATED: 401,
}
"""HTTP statuses of what a predictor says of one request; whatever else it says is 500."""


def error_of(error: grpc.aio.AioRpcError, title: str) -> MarwayError:
    """Return the error of ours that a failed prediction of a version stands for."""
    code, text = error.code(), clip(error.details() or error.code().name, _TEXT_MAX)
    match code:
        case _Code.NOT_FOUND:
            return NotLoaded(f"the predictor does not have {title}: {text}")
        case _Code.UNAVAILABLE if any(words in text.lower() for words in _NO_CONNECTION):
            return NotSent(f"the predictor takes no connection: {text}")
        case _Code.UNAVAILABLE | _Code.CANCELLED:
            return RuntimeDown(f"the predictor went away during the call: {text}")
        case _Code.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{title} did not answer within the deadline")
        case _Code.RESOURCE_EXHAUSTED if "CLIENT: Received message larger" in text:
            setting = "grpc_predictor_max_message_bytes"
            return ModelError(f"the answer of {title} is larger than is taken ({setting}): {text}")
        case _Code.RESOURCE_EXHAUSTED if "message larger than max" in text:
            return BodyTooLarge(f"the document is larger than the predictor takes: {text}")
        case _Code.RESOURCE_EXHAUSTED:
            return Busy(f"the predictor takes no more now: {text}")
        case _Code.UNIMPLEMENTED:
            return MarwayError(f"what answers is no prediction.Predictor with PredictorPredict: {text}")
        case _:
            return ModelError(f"{title} failed: {text}", status=_STATUS.get(code, 500))
