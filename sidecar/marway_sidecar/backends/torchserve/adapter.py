"""TorchServe behind the `ModelServer` interface."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from marway.deadline import Deadline
from marway.errors import LoadFailed, MarwayError, Unavailable, clip
from marway.wire import envelope, model_log
from marway.wire.runtime import LOGS, RuntimeInfo
from marway_sidecar.backends.base import Description, ServedModel, ServerInfo, ServerStatus, WorkerStatus
from marway_sidecar.backends.torchserve.archive import (
    Asked,
    asked_by,
    checked,
    unpacked_bytes,
    without_sequences,
)
from marway_sidecar.backends.torchserve.calls import Calls, EnvelopedCalls
from marway_sidecar.backends.torchserve.connection import Connection
from marway_sidecar.backends.torchserve.management import (
    Management,
    Refused,
    RuntimeControl,
    description_of,
    workers_of,
)
from marway_sidecar.backends.torchserve.plain import PlainCalls
from marway_sidecar.errors import about

__all__ = ["SERVES", "TorchServeAdapter"]

SERVES: Final = frozenset({"torchserve"})

_READY_POLL_S = 0.05
_LAST_WORDS_TRIES = 20
_LOG_BYTES = 1 << 20
_REASON_MAX = 800
_FULL_RETRY_S = 30.0
_MIB = 1024 * 1024


class TorchServeAdapter:
    """One running TorchServe.

    With workers that run our bootstrap, rows travel in envelopes; with its own (`RuntimeInfo.envelope` is another than
    ours, as 0 for a TorchServe that our runtime did not start), as TorchServe's own gRPC or REST requests.

    Args:
        info: Where it answers.
        runtime_dir: The directory shared with the runtime that started it, for what workers wrote and `runtime.sock`.
        key_file: Its `key_file.json`, when it wants tokens.
        batch_delay_ms: How long it may wait for a batch to fill where it makes batches itself; 0 makes none.
    """

    def __init__(
        self,
        info: RuntimeInfo,
        *,
        runtime_dir: Path | None = None,
        key_file: Path | None = None,
        batch_delay_ms: int = 0,
    ) -> None:
        self.serves = SERVES
        self.info = ServerInfo(info.boot_id, info.versions, info.memory_limit_bytes, info.cpus, info.environments_for)
        self._announced = runtime_dir is not None
        self._logs = runtime_dir / LOGS if runtime_dir is not None else None
        self._connection = Connection(info, key_file=key_file)
        self._control = RuntimeControl(runtime_dir) if info.control_socket and runtime_dir is not None else None
        self.batches = enveloped = info.envelope == envelope.VERSION
        self._management = Management(self._connection, batch_delay_ms=None if enveloped else batch_delay_ms)
        calls: Calls = EnvelopedCalls(self._connection) if enveloped else PlainCalls(self._connection)
        self.predict, self.predict_stream = calls.predict, calls.predict_stream
        self._registration = asyncio.Lock()
        self._registered: set[str] = set()

    async def load(self, model: ServedModel) -> Description:
        async with self._registration:
            # A duplicate registration leaks its unpacked archive: look first.
            found = await self.describe(model)
            if found is not None and found.version == model.version and found.ready_workers >= 1:
                self._registered.add(model.server_name)
                return _called(found, await asyncio.to_thread(asked_by, model))
            if found is not None:
                await self.unload(model)  # left by a load that was cut off, or with dead workers: start clean
            asked = await asyncio.to_thread(checked, model, enveloped=self.batches)
            if self._control is not None and model.environment is not None:
                await self._control.enter_environment(model)
            await self._register(model)
            self._registered.add(model.server_name)
            found = await self.describe(model)
            if found is None or found.version != model.version:
                await self._remove(model)
                archive = f"the archive of {model.name} {model.version}"
                raise about(model, LoadFailed(f"{archive} says another version in its manifest: pack it again"))
            if found.workers != model.workers:  # the archive's own configuration file asked for another number
                try:
                    found = await self._scale(model, model.workers)
                except LoadFailed:
                    await self.unload(model)
                    raise
            return _called(found, asked)

    async def _register(self, model: ServedModel) -> None:
        again = False
        began = datetime.now(UTC)
        while True:
            given = without_sequences(model)
            try:
                registered = await asyncio.to_thread(given.__enter__)
                try:
                    return await self._management.register(registered)
                finally:
                    given.__exit__(None, None, None)
            except Refused as exc:
                # A failed start unregisters by itself; one that timed out here may still be there.
                await self.unload(model)
                made_room = await self._made_room(model, exc)
                if again or not made_room:
                    raise await self._load_failed(model, str(exc), began) from exc
                again = True

    async def _made_room(self, model: ServedModel, refused: Refused) -> bool:
        """Remove what a load that failed left unpacked; return whether another try is worth it, as there is room now.

        Raises:
            Unavailable: The temporary directory is full.
        """
        if self._control is None:
            return False
        try:
            room = await self._control.remove_leftovers()
            needed = await asyncio.to_thread(unpacked_bytes, model)
        except MarwayError:
            return False
        if needed is not None and room.free_bytes < needed:
            message = (
                f"{model.name} {model.version} cannot be loaded: the disk of {room.directory}, into which TorchServe "
                f"unpacks archives, has {room.free_bytes // _MIB} MiB free and it needs {needed // _MIB + 1} MiB"
            )
            raise about(model, Unavailable(message, retry_after_s=_FULL_RETRY_S)) from refused
        return room.removed > 0

    async def unload(self, model: ServedModel) -> None:
        self._registered.discard(model.server_name)
        await self._management.unregister(model)
        if self._control is not None:
            await self._control.leave_environment(model)

    async def scale(self, model: ServedModel, workers: int) -> Description:
        found = await self.describe(model)
        if found is not None and workers and found.ready_workers == 0 < found.workers:
            # Workers that TorchServe gave up on after maxRetryTimeoutInSec still count: only from none is it a start.
            await self._scale(model, 0)
        return await self._scale(model, workers)

    async def describe(self, model: ServedModel) -> Description | None:
        entry = await self._management.describe(model.server_name, model.version)
        return description_of(entry) if entry is not None else None

    async def status(self) -> ServerStatus:
        names = await self._management.names()
        if self._control is not None:
            return await self._control.status(names)
        found: list[WorkerStatus] = []
        for name in sorted(names):
            entry = await self._management.describe(name)
            found += workers_of(name, entry) if entry is not None else []
        return ServerStatus(names, tuple(found), 0)

    async def is_same(self, *, timeout_s: float) -> bool:
        management = self._management
        if self._announced:
            await management.answers(timeout_s=timeout_s)
            return True  # its runtime says when it is another
        before = frozenset(self._registered)
        names = await management.names(timeout_s=timeout_s)
        if not self.info.versions:
            version = await management.server_version(timeout_s=timeout_s)
            self.info = replace(self.info, versions={"torchserve": version or ""})
        return (before & self._registered) <= names  # what was unloaded meanwhile is not lost

    async def aclose(self) -> None:
        await self._connection.aclose()
        if self._control is not None:
            await self._control.aclose()

    async def _scale(self, model: ServedModel, workers: int) -> Description:
        began = datetime.now(UTC)
        try:
            await self._management.scale(model, workers)
        except Refused as exc:
            raise await self._load_failed(model, str(exc), began) from exc
        deadline = Deadline.after(model.load_timeout_s)
        while True:
            found = await self.describe(model)
            if found is None:
                raise await self._load_failed(model, "TorchServe forgot the version while scaling it", began)
            # TorchServe's synchronous answer comes with the first worker: the others are still starting.
            if found.ready_workers >= workers or deadline.left_s() <= 0:
                return found
            await asyncio.sleep(_READY_POLL_S)

    async def _remove(self, model: ServedModel) -> None:
        """Unregister whatever version the server has under the model's name: it is ours alone."""
        entry = await self._management.describe(model.server_name)
        if entry is not None:
            await self.unload(replace(model, version=entry["modelVersion"]))

    async def _load_failed(self, model: ServedModel, answer: str, began: datetime) -> LoadFailed:
        """Return the error with the reason that the worker gave since then: TorchServe's own answer leaves it out."""
        reason, more = None, ""
        if self._logs is not None:
            reason = await _reason(self._logs, f"{model.server_name}_{model.version}", began)
            more = f"; `marway logs {model.name}`, or the log of the pod's runtime, has the traceback"
        why = f"{clip(reason or answer, _REASON_MAX)}{more}"
        return about(model, LoadFailed(f"{model.name} {model.version} cannot be loaded: {why}"))


async def _reason(logs: Path, worker: str, began: datetime) -> str | None:
    """Return why a worker failed, waiting for a moment: TorchServe sees its death before it has read its last words."""
    for _ in range(_LAST_WORDS_TRIES):
        lines = await asyncio.to_thread(model_log.read, logs, [worker], last_bytes=_LOG_BYTES)
        reason = model_log.last_error(line for line in lines if line.at >= began)
        if reason is not None:
            return reason
        await asyncio.sleep(_READY_POLL_S)
    return None


def _called(found: Description, asked: Asked) -> Description:
    """Return a description with what its archive asks for."""
    return replace(
        found,
        calls_per_worker=asked.calling.at_once,
        in_pieces=asked.calling.way == "continuous",
        answer_within_s=asked.answer_within_s,
        workers_max=1 if asked.calling.way == "continuous" else None,
    )
