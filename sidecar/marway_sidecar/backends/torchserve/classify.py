"""What TorchServe's errors mean: told by code *and* text, because one code stands for many things.

The tables are those of `docs/torchserve.md`; each row was seen with the 0.12 server.
"""

from __future__ import annotations

import json
from typing import Final

import grpc

from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError, ModelError, Overloaded, RuntimeDown, clip
from marway_sidecar.backends.base import NotLoaded, NotSent, ServedModel, WorkerDied
from marway_sidecar.errors import about

__all__ = ["classify", "classify_rest", "died_or_late"]

_Code = grpc.StatusCode
_RAISED: Final = "org.pytorch.serve.http.InternalServerException"
"""Ends the details of an error that a worker answered with."""
_NO_CONNECTION: Final = ("failed to connect to all addresses", "Failed to connect to remote host")
"""In the details of a call that gRPC had no connection for."""
_HANDLER_STATUS: Final = {
    _Code.INVALID_ARGUMENT: 400,
    _Code.UNAUTHENTICATED: 401,
    _Code.PERMISSION_DENIED: 403,
    _Code.NOT_FOUND: 404,
    _Code.ABORTED: 409,
    _Code.FAILED_PRECONDITION: 400,
    _Code.UNIMPLEMENTED: 501,
}
"""What TorchServe makes of the status of a `PredictionException`, backwards."""
_REST_TYPES: Final = frozenset(
    {
        "BadRequestException",
        "InternalServerException",
        "InvalidKeyException",
        "ModelNotFoundException",
        "ModelVersionNotFoundException",
        "ResourceNotFoundException",
        "ServiceUnavailableException",
    }
)


def classify(error: grpc.aio.AioRpcError, model: ServedModel) -> MarwayError:
    """Return the error of ours that a failed inference call over gRPC stands for."""
    return about(model, _grpc_kind(error.code(), error.details() or "", model))


def classify_rest(status: int, body: bytes, model: ServedModel) -> MarwayError | None:
    """Return the error of ours that an answer over REST stands for; None when it is the handler's own answer."""
    if status == 413 and not body:
        return about(model, _too_large())
    try:
        document = json.loads(body)
        if status < 400 or set(document) != {"code", "type", "message"} or document["type"] not in _REST_TYPES:
            return None
        known = _rest_kind(int(document["code"]), document["type"], str(document["message"]), model)
    except (ValueError, TypeError):
        return None
    return about(model, known)


def died_or_late(error: WorkerDied, model: ServedModel, after_s: float) -> MarwayError:
    """Return what it means that a worker died ``after_s`` seconds after it was last heard of in a call.

    TorchServe ends a worker that takes longer than `responseTimeout`, and says of it what it says of any dead one.
    """
    within_s = model.answer_within_s if model.answer_within_s is not None else model.predict_timeout_s
    if after_s < within_s:
        return error
    title = f"{model.name} {model.version}"
    return about(model, DeadlineExceeded(f"{title} did not answer in its time, {within_s:g} s: its worker was ended"))


def _grpc_kind(code: grpc.StatusCode, text: str, model: ServedModel) -> MarwayError:
    match code:
        case _Code.INTERNAL if "has no worker" in text:
            return _no_worker(model)
        case _Code.INTERNAL if "ModelNotFoundException" in text or "ModelVersionNotFoundException" in text:
            return _not_loaded(model)
        case _Code.INTERNAL | _Code.RESOURCE_EXHAUSTED if "orker died" in text:
            return _worker_died(model)
        case _Code.INTERNAL | _Code.RESOURCE_EXHAUSTED if "Out of resources" in text:
            return _out_of_memory(model)
        case _Code.RESOURCE_EXHAUSTED if "Sent message larger than max" in text:
            return _too_large()
        case _Code.RESOURCE_EXHAUSTED if "larger than max" in text:
            return ModelError(f"the answer is too large to be sent: {clip(text, 200)}")
        case _Code.RESOURCE_EXHAUSTED if _RAISED not in text:
            return _worker_died(model)
        case _Code.UNAVAILABLE if _RAISED in text or "Prediction failed" in text:
            return _handler_failed(model, text.removesuffix(_RAISED).strip(), 500)
        case _Code.UNAVAILABLE if any(marker in text for marker in _NO_CONNECTION):
            return NotSent(f"TorchServe does not answer: {clip(text, 200)}")
        case _Code.UNAVAILABLE:
            return RuntimeDown(f"TorchServe does not answer: {clip(text, 200)}")
        case _Code.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{model.name} {model.version} did not answer within the deadline")
        case _Code.CANCELLED:
            return _too_large()
        case _ if _RAISED in text:
            return _handler_failed(model, text.removesuffix(_RAISED).strip(), _HANDLER_STATUS.get(code, 500))
        case _Code.PERMISSION_DENIED:
            return MarwayError(f"TorchServe refuses the token in its key file: {clip(text, 200)}")
        case _Code.INVALID_ARGUMENT | _Code.INTERNAL:
            return ModelError(f"{model.name} {model.version} failed: {clip(text, 300)}")
        case _:
            return MarwayError(f"TorchServe answered {code.name}: {clip(text, 300)}")


def _rest_kind(code: int, kind: str, message: str, model: ServedModel) -> MarwayError:
    match kind:
        case "ServiceUnavailableException":
            return _no_worker(model)
        case "ModelNotFoundException" | "ModelVersionNotFoundException" | "ResourceNotFoundException":
            return _not_loaded(model)
        case "InvalidKeyException":
            return MarwayError(f"TorchServe refuses the token in its key file: {clip(message, 200)}")
        case "InternalServerException" if "orker died" in message:
            return _worker_died(model)
        case "InternalServerException" if "Out of resources" in message:
            return _out_of_memory(model)
        case "InternalServerException" if "did not respond in time" in message:
            return DeadlineExceeded(f"{model.name} {model.version} did not answer in its time: {clip(message, 200)}")
        case "InternalServerException":
            # 503 is what TorchServe calls any exception of a handler; another is the handler's own choice.
            return _handler_failed(model, message, 500 if code == 503 else code)
        case _:
            return ModelError(f"{model.name} {model.version} failed: {clip(message, 300)}", status=code)


def _no_worker(model: ServedModel) -> MarwayError:
    return Overloaded(f"{model.name} {model.version} has no free worker and its queue is full")


def _not_loaded(model: ServedModel) -> MarwayError:
    return NotLoaded(f"TorchServe does not have {model.name} {model.version}")


def _worker_died(model: ServedModel) -> MarwayError:
    return WorkerDied(f"the worker of {model.name} {model.version} died during the call")


def _out_of_memory(model: ServedModel) -> MarwayError:
    return ModelError(f"{model.name} {model.version} ran out of memory", status=507)


def _too_large() -> MarwayError:
    return BodyTooLarge("the request is larger than the model server takes: send less at once")


def _handler_failed(model: ServedModel, message: str, status: int) -> MarwayError:
    return ModelError(
        f"the handler of {model.name} {model.version} failed: {clip(message, 300)}",
        status=status if 400 <= status <= 599 else 500,
    )
