"""How a TensorFlow Serving is asked: what both its APIs have in common, and the one over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import grpc

from marway.errors import RuntimeDown, clip
from marway_sidecar.backends.base import NotSent
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_pb2 as tf
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2 as pb
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2_grpc as services

__all__ = ["SIGNATURES", "Failed", "GrpcTransport", "Transport"]

SIGNATURES: Final = "signature_def"
"""The one metadata field that there is."""
_NO_CONNECTION: Final = ("failed to connect to all addresses", "Failed to connect to remote host")
"""In the details of a call that gRPC had no connection for."""
_QUEUE_FULL: Final = "queue"
"""In the details of UNAVAILABLE where the server's own batching has too many waiting: it is there, and busy."""

T = TypeVar("T")


class Failed(Exception):
    """The server said that a call failed.

    Attributes:
        code: By the name of gRPC's status, such as NOT_FOUND.
        text: What it said.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Transport(Protocol):
    """An API of one server; its methods raise `Failed` when the server says no, and `RuntimeDown` when it is silent."""

    async def predict(
        self, request: pb.PredictRequest, signature: tf.SignatureDef | None, *, timeout_s: float
    ) -> pb.PredictResponse:
        """Return the answer to a request by a ``signature``, where the server told that."""

    async def signatures(self, spec: pb.ModelSpec, *, timeout_s: float) -> pb.SignatureDefMap:
        """Return a model's signatures by name."""

    async def status(self, name: str, *, timeout_s: float) -> list[pb.ModelVersionStatus]:
        """Return what the server says of a model's versions; none of one that it never had."""

    async def reload(self, config: pb.ModelConfigList, *, timeout_s: float) -> None:
        """Have the server serve the models of a list, and no others; returns when new ones are there."""

    async def aclose(self) -> None:
        """Close the connections; the server is left as it is."""


class GrpcTransport:
    """PredictionService and ModelService over gRPC.

    Args:
        address: Such as 127.0.0.1:8500.
    """

    def __init__(self, address: str) -> None:
        options = [
            ("grpc.max_send_message_length", -1),  # the sidecar's own limits hold before
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 1000),  # one that is back is to be seen soon
            ("grpc.enable_retries", 0),  # what may be tried again is decided by the gateway
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._predictions = services.PredictionServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._models = services.ModelServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    async def predict(
        self, request: pb.PredictRequest, signature: tf.SignatureDef | None, *, timeout_s: float
    ) -> pb.PredictResponse:
        answer: pb.PredictResponse = await _called(self._predictions.Predict, request, timeout_s)
        return answer

    async def signatures(self, spec: pb.ModelSpec, *, timeout_s: float) -> pb.SignatureDefMap:
        request = pb.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURES])
        answer: pb.GetModelMetadataResponse = await _called(self._predictions.GetModelMetadata, request, timeout_s)
        found = pb.SignatureDefMap()
        answer.metadata[SIGNATURES].Unpack(found)
        return found

    async def status(self, name: str, *, timeout_s: float) -> list[pb.ModelVersionStatus]:
        request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name=name))
        try:
            answer: pb.GetModelStatusResponse = await _called(self._models.GetModelStatus, request, timeout_s)
        except Failed as exc:
            if exc.code == "NOT_FOUND":
                return []
            raise
        return list(answer.model_version_status)

    async def reload(self, config: pb.ModelConfigList, *, timeout_s: float) -> None:
        request = pb.ReloadConfigRequest(config=pb.ModelServerConfig(model_config_list=config))
        answer: pb.ReloadConfigResponse = await _called(self._models.HandleReloadConfigRequest, request, timeout_s)
        status = answer.status
        if status.error_code:
            raise Failed(grpc_name(status.error_code), status.error_message)

    async def aclose(self) -> None:
        await self._channel.close(None)


def grpc_name(number: int) -> str:
    """Return the name of gRPC's status with a number."""
    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")


async def _called(method: Callable[..., Awaitable[Any]], request: Any, timeout_s: float) -> Any:
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as exc:
        text = exc.details() or exc.code().name
        if exc.code() is grpc.StatusCode.UNAVAILABLE and _QUEUE_FULL not in text:
            kind = NotSent if any(marker in text for marker in _NO_CONNECTION) else RuntimeDown
            raise kind(f"TensorFlow Serving does not answer: {clip(text, 200)}") from exc
        raise Failed(exc.code().name, text) from exc
    except grpc.aio.UsageError as exc:
        raise RuntimeDown("TensorFlow Serving went down as the call was made") from exc
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # it was the task that was cancelled, not the call that it waited for
        raise RuntimeDown("TensorFlow Serving went down during the call") from exc  # which closed its channel
