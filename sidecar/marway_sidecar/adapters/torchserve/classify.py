"""What TorchServe's gRPC errors mean: told by code *and* text, because one code stands for many things.

The table is that of `docs/torchserve.md`; each row was seen with the 0.12 server.
"""

from __future__ import annotations

import grpc

from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    MarwayError,
    ModelError,
    Overloaded,
    RuntimeDown,
    clip,
)
from marway_sidecar.adapters.base import NotLoaded, ServedModel, WorkerDied

__all__ = ["classify"]


def classify(error: grpc.aio.AioRpcError, model: ServedModel) -> MarwayError:
    """Return the error of ours that a failed inference call stands for."""
    known = _kind(error, model)
    known.model, known.version = model.name, model.version
    return known


def _kind(error: grpc.aio.AioRpcError, model: ServedModel) -> MarwayError:
    code, text = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.INTERNAL if "has no worker" in text:
            return Overloaded(f"{model.name} {model.version} has no free worker and its queue is full")
        case grpc.StatusCode.INTERNAL if "ModelNotFoundException" in text or "ModelVersionNotFoundException" in text:
            return NotLoaded(f"TorchServe does not have {model.name} {model.version}")
        case grpc.StatusCode.INTERNAL if "orker died" in text:
            return WorkerDied(f"the worker of {model.name} {model.version} died during the call")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "Sent message larger than max" in text:
            return BodyTooLarge("the request is larger than the model server takes: send less at once")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in text:
            return ModelError(f"the answer is too large to be sent: {clip(text, 200)}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return WorkerDied(f"the worker of {model.name} {model.version} was killed during the call")
        case grpc.StatusCode.UNAVAILABLE if "Prediction failed" in text or "predict" in text.lower():
            return ModelError(f"the handler of {model.name} {model.version} failed: {clip(text, 300)}")
        case grpc.StatusCode.UNAVAILABLE:
            return RuntimeDown(f"TorchServe does not answer: {clip(text, 200)}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{model.name} {model.version} did not answer within the deadline")
        case grpc.StatusCode.CANCELLED:
            return BodyTooLarge("the request is larger than the model server takes")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.INTERNAL:
            return ModelError(f"{model.name} {model.version} failed: {clip(text, 300)}")
        case _:
            return MarwayError(f"TorchServe answered {code.name}: {clip(text, 300)}")
