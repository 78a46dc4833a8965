"""A predictor behind the `ModelServer` interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import grpc

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, MarwayError, RuntimeDown, Unavailable, clip
from marway.refs import new_ulid
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import (
    Description,
    NotLoaded,
    ServedModel,
    ServerInfo,
    ServerStatus,
    WorkerStatus,
)
from marway_sidecar.backends.grpc_predictor.documents import answer_of, document_of
from marway_sidecar.backends.grpc_predictor.errors import error_of
from marway_sidecar.backends.grpc_predictor.proto import predictor_pb2
from marway_sidecar.backends.model_directory import ModelDirectory, bundle_of
from marway_sidecar.errors import about

__all__ = ["SERVES", "PredictorServer"]

SERVES: Final = frozenset({"grpc-predictor"})

_PREDICT: Final = f"/{predictor_pb2.DESCRIPTOR.package}.Predictor/PredictorPredict"
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = b"\x08\x01"
"""A `HealthCheckResponse` whose status is SERVING (https://github.com/grpc/grpc/blob/master/doc/health-checking.md)."""
_TIMEOUT_S: Final = 30.0


class _Run(NamedTuple):
    """A version that is loaded: what predictions call it, and its number."""

    run_id: str
    version: str


class PredictorServer:
    """One predictor. What it has is what lies in its model directory: it loads a model with its first prediction.

    Args:
        address: Where it answers.
        directory: Its model directory; None for a predictor whose models are somebody else's matter.
        first_document: What a version is asked when it is loaded; "" for nothing.
        concurrency: Predictions of one version at once.
        max_message_bytes: Largest document and answer.
        max_models: Most versions in the directory at once; None for any number.
    """

    batches = False
    serves = SERVES

    def __init__(
        self,
        address: str,
        directory: ModelDirectory | None,
        *,
        first_document: str,
        concurrency: int,
        max_message_bytes: int,
        max_models: int | None,
    ) -> None:
        self.info = ServerInfo(new_ulid(), {"grpc-predictor": ""}, versions_max=max_models)
        self._directory = directory
        self._first_document = first_document
        self._concurrency = concurrency
        self._channel = grpc.aio.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_reconnect_backoff_ms", 1000),  # one that is back is to be seen soon
                ("grpc.enable_retries", 0),  # what may be tried again is decided by the gateway
                ("grpc.use_local_subchannel_pool", 1),  # whose connection it is tells one start from another
            ],
        )
        self._predict = self._channel.unary_unary(
            _PREDICT,
            predictor_pb2.PredictorPredictRequest.SerializeToString,
            predictor_pb2.PredictorPredictResponse.FromString,
        )
        self._health = self._channel.unary_unary(_HEALTH, None, None)
        self._runs: dict[str, _Run] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._watching: asyncio.Task[None] | None = None
        self._lost = False
        self._closed = False

    async def is_same(self, *, timeout_s: float) -> bool:
        if self._is_lost():
            return False
        await self._check_well(timeout_s)
        if self._watching is None:
            # What a sidecar left that is no more: nobody knows of it, and nothing else removes it.
            if self._directory is not None:
                for placed in await asyncio.to_thread(self._directory.left):
                    await asyncio.to_thread(self._directory.remove, placed.server_name)
            self._watching = asyncio.create_task(self._watch_connection(), name="watch-predictor")
        return True

    async def _check_well(self, timeout_s: float) -> None:
        try:
            said = await self._health(b"", timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.UNIMPLEMENTED:
                return  # it answers, and has no health service
            text = clip(exc.details() or exc.code().name, 200)
            raise RuntimeDown(f"the predictor does not answer: {text}") from exc
        except (grpc.aio.UsageError, asyncio.CancelledError) as exc:
            raise self._given_up(exc) from exc
        if not bytes(said).startswith(_SERVING):
            raise RuntimeDown("the predictor says that it is not serving")

    async def _watch_connection(self) -> None:
        """Notice the end of the one connection: whatever answers after that may be another predictor."""
        with suppress(grpc.aio.UsageError):  # it was closed
            await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            self._lost = True

    async def load(self, model: ServedModel) -> Description:
        lock = self._locks.setdefault(model.server_name, asyncio.Lock())
        async with lock:
            if model.server_name in self._runs:
                return self._description(model.version)
            manifest = await asyncio.to_thread(bundle_of, model, "grpc-predictor")
            if self._directory is not None:
                await asyncio.to_thread(self._directory.place, model)
            elif manifest.server_model is None:
                message = f"the bundle of {model.name} {model.version} does not say which run it is in the predictor"
                raise about(model, LoadFailed(f"{message}: pack it with --server-model RUN"))
            run = _Run(manifest.server_model or "" if self._directory is None else model.server_name, model.version)
            try:
                await self._ask_first(model, run)
            except MarwayError:
                await self._remove(model)
                raise
            self._runs[model.server_name] = run
            return self._description(model.version)

    async def _ask_first(self, model: ServedModel, run: _Run) -> None:
        """Have a version loaded, which its first prediction does."""
        if not self._first_document:
            return
        try:
            await self._ask(model, run, self._first_document, model.load_timeout_s)
        except DeadlineExceeded as exc:
            message = (
                f"{model.name} {model.version} was not loaded within {model.load_timeout_s:g} s (`load_timeout_s`)"
            )
            raise about(model, LoadFailed(message)) from exc
        except RuntimeDown:
            raise
        except NotLoaded as exc:
            if self._directory is not None:
                raise about(model, LoadFailed(f"{model.name} {model.version} cannot be loaded: {exc.message}")) from exc
            raise about(model, Unavailable(f"{exc.message} (run {clip(run.run_id, 80)!r})")) from exc  # another may
        except MarwayError as exc:
            asked = f"asked {clip(self._first_document, 40)!r} (grpc_predictor_first_document)"
            raise about(
                model, LoadFailed(f"{model.name} {model.version} cannot be loaded: {asked}, {exc.message}")
            ) from exc

    async def unload(self, model: ServedModel) -> None:
        run = self._runs.pop(model.server_name, None)
        try:
            await self._remove(model)
        except MarwayError:
            if run is not None:
                self._runs[model.server_name] = run
            raise

    async def _remove(self, model: ServedModel) -> None:
        if self._directory is None:
            return
        try:
            await asyncio.to_thread(self._directory.remove, model.server_name)
        except OSError as exc:
            message = f"the files of {model.name} {model.version} cannot be removed: {exc}"
            raise about(model, MarwayError(message)) from exc

    async def scale(self, model: ServedModel, workers: int) -> Description:
        return self._description(self._loaded(model).version)

    async def describe(self, model: ServedModel) -> Description | None:
        self._check_connection()
        run = self._runs.get(model.server_name)
        return self._description(run.version) if run is not None else None

    async def status(self) -> ServerStatus:
        await self._check_well(_TIMEOUT_S)
        reason = "of a predictor that keeps its workers itself"
        workers = [WorkerStatus(0, name, "plain", reason, private_bytes=0) for name in sorted(self._runs)]
        return ServerStatus(frozenset(self._runs), tuple(workers), 0)

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        return [await self._one(model, row, deadline) for row in rows]

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        yield await self._one(model, row, deadline)

    async def _one(self, model: ServedModel, row: Row, deadline: Deadline) -> Answer:
        self._check_connection()
        run = self._loaded(model)
        remaining_s = deadline.left_s()
        if remaining_s <= 0:
            raise about(model, DeadlineExceeded("the deadline passed before the predictor was asked"))
        try:
            return answer_of(await self._ask(model, run, document_of(row), remaining_s))
        except MarwayError as exc:
            about(model, exc)
            raise

    async def _ask(self, model: ServedModel, run: _Run, document: str, timeout_s: float) -> str:
        request = predictor_pb2.PredictorPredictRequest(runId=run.run_id, document=document)
        try:
            return str((await self._predict(request, timeout=timeout_s)).response)
        except grpc.aio.AioRpcError as exc:
            raise error_of(exc, f"{model.name} {model.version}") from exc
        except (grpc.aio.UsageError, asyncio.CancelledError) as exc:
            raise self._given_up(exc) from exc

    def _given_up(self, exc: BaseException) -> BaseException:
        """Return what it means that a call ended so: its task was cancelled, or its channel was closed under it."""
        task = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and (not self._closed or (task is not None and task.cancelling())):
            return exc
        return RuntimeDown("the predictor was let go of during the call")

    def _is_lost(self) -> bool:
        """Whether the connection has ended, also where nobody was told of it yet."""
        if self._watching is not None and not self._closed:
            self._lost = self._lost or self._channel.get_state() is not grpc.ChannelConnectivity.READY
        return self._lost

    def _check_connection(self) -> None:
        if self._is_lost():
            raise RuntimeDown("the predictor ended the connection: it was restarted, or is going")

    def _loaded(self, model: ServedModel) -> _Run:
        run = self._runs.get(model.server_name)
        if run is None:
            raise about(model, NotLoaded(f"the predictor does not have {model.name} {model.version}"))
        return run

    def _description(self, version: str) -> Description:
        return Description(version, 1, 1, calls_per_worker=self._concurrency, scales=False)

    async def aclose(self) -> None:
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._channel.close(None)
