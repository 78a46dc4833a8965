"""What TensorFlow Serving's errors mean; the table is that of `docs/tensorflow-serving.md`."""

from __future__ import annotations

from typing import Final

from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError, ModelError, Overloaded, clip
from marway_sidecar.backends.base import NotLoaded, ServedModel
from marway_sidecar.backends.tensorflow_serving.transport import Failed
from marway_sidecar.errors import about

__all__ = ["classify"]

_STATUS: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,  # among others: there is no such signature
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501,
}
_NO_SERVABLE: Final = ("Servable not found", "Could not find")
_TOO_LARGE: Final = ("larger than max", "Sent message larger")


def classify(failed: Failed, model: ServedModel) -> MarwayError:
    """Return the error of ours that a failed prediction stands for."""
    return about(model, _meaning(failed, model))


def _meaning(failed: Failed, model: ServedModel) -> MarwayError:
    title, text = f"{model.name} {model.version}", failed.text
    match failed.code:
        case "NOT_FOUND" if any(marker in text for marker in _NO_SERVABLE):
            return NotLoaded(f"TensorFlow Serving does not have {title}")
        case "UNAVAILABLE":
            return Overloaded(f"{title} has too many requests waiting in TensorFlow Serving")
        case "RESOURCE_EXHAUSTED" if any(marker in text for marker in _TOO_LARGE):
            return BodyTooLarge("the request or its answer is larger than TensorFlow Serving takes: send less at once")
        case "RESOURCE_EXHAUSTED":
            return ModelError(f"{title} ran out of memory: {clip(text, 200)}", status=507)
        case "DEADLINE_EXCEEDED":
            return DeadlineExceeded(f"{title} did not answer within the deadline")
        case code:
            return ModelError(f"{title} failed: {clip(text, 300)}", status=_STATUS.get(code, 500))
