"""TorchServe behind the `ModelServer` interface: gRPC for registration and inference, REST where gRPC cannot.

REST registration blocks a thread that inference shares, so registration goes over gRPC. gRPC reads zero as unset, so
scaling to zero goes over REST. Concurrent registrations can lose one, so they are serialised here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import grpc
import httpx

from marway import model_log
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, MarwayError, ModelError, RuntimeDown, clip
from marway.wire import envelope
from marway.wire.envelope import Answer, Row
from marway.wire.runtime import LOGS, RuntimeInfo
from marway_sidecar.adapters.base import Description, ServedModel
from marway_sidecar.adapters.torchserve.classify import classify
from marway_sidecar.adapters.torchserve.proto import (
    inference_pb2,
    inference_pb2_grpc,
    management_pb2,
    management_pb2_grpc,
)

__all__ = ["TorchServeAdapter"]

_MANAGEMENT_TIMEOUT_S = 30.0
# TorchServe restarts a worker in the middle of a batch that waits longer than this for the next row: never here.
_MAX_BATCH_DELAY_MS = 1


class TorchServeAdapter:
    """One running TorchServe.

    Args:
        info: Where it answers, as its runtime says.
        runtime_dir: The directory shared with that runtime, for what workers wrote.
    """

    def __init__(self, info: RuntimeInfo, *, runtime_dir: Path) -> None:
        self._info = info
        self._logs = runtime_dir / LOGS
        options = [
            ("grpc.max_send_message_length", info.max_request_bytes),
            ("grpc.max_receive_message_length", info.max_request_bytes),
            ("grpc.keepalive_time_ms", 2**31 - 1),  # TorchServe answers keepalive pings with GOAWAY
            ("grpc.enable_retries", 0),  # what may be tried again is decided by the gateway
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._inference_channel = grpc.aio.insecure_channel(info.addresses.grpc_inference, options=options)
        self._management_channel = grpc.aio.insecure_channel(info.addresses.grpc_management, options=options)
        self._inference = inference_pb2_grpc.InferenceAPIsServiceStub(self._inference_channel)  # type: ignore[no-untyped-call]  # generated
        self._management = management_pb2_grpc.ManagementAPIsServiceStub(self._management_channel)  # type: ignore[no-untyped-call]  # generated
        self._rest = httpx.AsyncClient(
            base_url=info.addresses.management, timeout=_MANAGEMENT_TIMEOUT_S, trust_env=False
        )
        self._registration = asyncio.Lock()

    @property
    def info(self) -> RuntimeInfo:
        return self._info

    async def load(self, model: ServedModel) -> Description:
        async with self._registration:
            # A duplicate registration leaks its unpacked archive: look first.
            found = await self.describe(model)
            if found is not None and found.ready_workers >= 1:
                return found
            if found is not None:
                await self.unload(model)  # left by a load that was cut off: start clean
            await self._register(model)
            found = await self.describe(model)
            if found is None or found.version != model.version:
                await self.unload(model)
                have = found.version if found is not None else "none"
                raise LoadFailed(
                    f"the archive of {model.name} {model.version} says version {have} in its manifest: pack it again",
                    model=model.name,
                    version=model.version,
                )
        if found.workers != model.workers:  # the archive's own configuration file asked for another number
            found = await self.scale(model, model.workers)
        return found

    async def unload(self, model: ServedModel) -> None:
        try:
            answer = await self._rest.delete(f"/models/{model.server_name}/{model.version}")
        except httpx.TransportError as exc:
            raise RuntimeDown(f"TorchServe does not answer: {exc}") from exc
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED, httpx.codes.NOT_FOUND):
            raise MarwayError(f"TorchServe would not unload {model.name} {model.version}: {clip(answer.text, 300)}")

    async def scale(self, model: ServedModel, workers: int) -> Description:
        # min below max leaves live workers that TorchServe has forgotten: always the same.
        query: dict[str, str | int] = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        try:
            answer = await self._rest.put(
                f"/models/{model.server_name}/{model.version}", params=query, timeout=model.load_timeout_s
            )
        except httpx.TransportError as exc:
            raise RuntimeDown(f"TorchServe does not answer: {exc}") from exc
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
            raise self._load_failed(model, answer.text)
        found = await self.describe(model)
        if found is None:
            raise self._load_failed(model, "TorchServe forgot the version while scaling it")
        return found

    async def describe(self, model: ServedModel) -> Description | None:
        request = management_pb2.DescribeModelRequest(model_name=model.server_name, model_version=model.version)
        try:
            answer = await self._management.DescribeModel(request, timeout=_MANAGEMENT_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            if exc.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise RuntimeDown(f"TorchServe does not answer: {clip(exc.details() or '', 200)}") from exc
            if exc.code() is grpc.StatusCode.NOT_FOUND or "NotFound" in (exc.details() or ""):
                return None
            raise MarwayError(f"TorchServe would not describe {model.name}: {clip(exc.details() or '', 200)}") from exc
        entry = json.loads(answer.msg)[0]
        workers = entry["workers"]
        ready = sum(worker["status"] == "READY" for worker in workers)
        return Description(version=entry["modelVersion"], ready_workers=ready, workers=len(workers))

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        remaining = deadline.remaining()
        if remaining <= 0:
            raise DeadlineExceeded("the deadline passed before the model was asked", model=model.name)
        request = inference_pb2.PredictionsRequest(
            model_name=model.server_name, model_version=model.version, input={envelope.KEY: envelope.encode_rows(rows)}
        )
        try:
            answer = await self._inference.Predictions(request, timeout=remaining)
        except grpc.aio.AioRpcError as exc:
            raise classify(exc, model) from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled us: the channel was closed, because this TorchServe is gone.
            raise RuntimeDown("TorchServe went down during the call", model=model.name, version=model.version) from exc
        try:
            answers = envelope.decode_answers(answer.prediction)
        except ValueError as exc:
            # An archive with its own Python (`runtime`, torchrun) runs without our bootstrap.
            raise ModelError(
                f"{model.name} {model.version} answered without Marway's worker bootstrap: it has a runtime of its own",
                model=model.name,
                version=model.version,
            ) from exc
        if len(answers) != len(rows):
            raise MarwayError(f"{model.name} {model.version} gave {len(answers)} answers to {len(rows)} rows")
        return answers

    async def aclose(self) -> None:
        await self._inference_channel.close(None)
        await self._management_channel.close(None)
        await self._rest.aclose()

    async def _register(self, model: ServedModel) -> None:
        request = management_pb2.RegisterModelRequest(
            url=model.archive.name,
            model_name=model.server_name,
            batch_size=1,
            max_batch_delay=_MAX_BATCH_DELAY_MS,
            initial_workers=model.workers,
            synchronous=True,
            response_timeout=max(1, round(model.predict_timeout_s)),
            startup_timeout=max(1, round(model.load_timeout_s)),
        )
        try:
            await self._management.RegisterModel(request, timeout=model.load_timeout_s + _MANAGEMENT_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.UNAVAILABLE:
                raise RuntimeDown(f"TorchServe does not answer: {clip(exc.details() or '', 200)}") from exc
            # A failed start unregisters by itself; one that timed out here may still be there.
            await self.unload(model)
            raise self._load_failed(model, exc.details() or exc.code().name) from exc

    def _load_failed(self, model: ServedModel, said: str) -> LoadFailed:
        """Return the error with the reason that the handler gave, which TorchServe's own answer leaves out."""
        lines = model_log.read(self._logs, [f"{model.server_name}_{model.version}"])
        reason = model_log.last_error(lines) or clip(said, 300)
        return LoadFailed(
            f"{model.name} {model.version} cannot be loaded: {clip(reason, 400)}; `marway logs {model.name}` has more",
            model=model.name,
            version=model.version,
        )
