"""Multi Model Server behind the `ModelServer` interface."""

from __future__ import annotations

import asyncio
import time
import zipfile
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import httpx

from marway.archives.rules import expansion_problem
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, Unimplemented, clip
from marway.refs import new_ulid
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import Description, ServedModel, ServerInfo, ServerStatus, WorkerDied, WorkerStatus
from marway_sidecar.backends.calls import each_alone
from marway_sidecar.backends.mms.classify import classify, died_or_late
from marway_sidecar.backends.mms.connection import Connection
from marway_sidecar.backends.mms.management import Management, Refused, Registered, answers_within_s
from marway_sidecar.backends.rest_rows import answer_of, request_of
from marway_sidecar.errors import about

__all__ = ["SERVES", "MmsServer"]

SERVES: Final = frozenset({"mms"})


class MmsServer:
    """One running Multi Model Server. Every version is a model of its own there.

    Args:
        inference: URL of its inference API.
        management: URL of its management API.
        batch_delay_ms: How long it may wait for a batch to fill; 0 makes none.
    """

    batches = False

    def __init__(self, inference: str, management: str, *, batch_delay_ms: int = 0) -> None:
        self.serves = SERVES
        # Nothing that it says of itself tells its version.
        self.info = ServerInfo(new_ulid(), {"mms": ""})
        self._connection = Connection(inference, management)
        self._management = Management(self._connection, batch_delay_ms=batch_delay_ms)
        # A registration holds one of the few threads that answer requests, too.
        self._registration = asyncio.Lock()
        self._registered: set[str] = set()

    async def load(self, model: ServedModel) -> Description:
        async with self._registration:
            found = await self._management.describe(model.server_name)
            if found is None or found.ready < 1:
                await asyncio.to_thread(_check, model)
                await self._register(model, model.workers)
            elif found.workers != model.workers:
                await self._scale(model, model.workers)
            self._registered.add(model.server_name)
            return await self._described(model)

    async def unload(self, model: ServedModel) -> None:
        self._registered.discard(model.server_name)
        await self._management.unregister(model.server_name)

    async def scale(self, model: ServedModel, workers: int) -> Description:
        if workers == 0:
            # Scaled to none by its own call, a model can never have a worker again; registered with none, it can.
            async with self._registration:
                await self._register(model, 0)
        else:
            await self._scale(model, workers)
        return await self._described(model)

    async def describe(self, model: ServedModel) -> Description | None:
        found = await self._management.describe(model.server_name)
        return _description(model, found) if found is not None else None

    async def status(self) -> ServerStatus:
        names = await self._management.names()
        workers: list[WorkerStatus] = []
        for name in sorted(names):
            found = await self._management.describe(name)
            workers += found.statuses(name) if found is not None else []
        return ServerStatus(names, tuple(workers), 0)

    async def is_same(self, *, timeout_s: float) -> bool:
        before = frozenset(self._registered)
        names = await self._management.names(timeout_s=timeout_s)
        return (before & self._registered) <= names  # what was unloaded meanwhile is not lost

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        return await each_alone(lambda row: self._answer(model, row, deadline), rows)

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        yield await self._answer(model, row, deadline)  # its handlers cannot send pieces

    async def aclose(self) -> None:
        await self._connection.aclose()

    async def _register(self, model: ServedModel, workers: int) -> None:
        """Register a version anew.

        Raises:
            LoadFailed: It cannot be; nothing of it is left.
        """
        await self._management.unregister(model.server_name)
        try:
            await self._management.register(model, workers)
        except Refused as exc:
            await self._management.unregister(model.server_name)
            raise _load_failed(model, exc) from exc

    async def _scale(self, model: ServedModel, workers: int) -> None:
        try:
            await self._management.scale(model, workers)
        except Refused as exc:
            raise _load_failed(model, exc) from exc

    async def _described(self, model: ServedModel) -> Description:
        found = await self._management.describe(model.server_name)
        if found is None:
            title = f"{model.name} {model.version}"
            raise about(model, LoadFailed(f"Multi Model Server forgot {title} as soon as it was loaded"))
        return _description(model, found)

    async def _answer(self, model: ServedModel, row: Row, deadline: Deadline) -> Answer:
        title = f"{model.name} {model.version}"
        if row.explains:
            raise about(model, Unimplemented(f"Multi Model Server, which serves {title}, has no explanations"))
        within_s = deadline.left_s()
        if within_s <= 0:
            raise about(model, DeadlineExceeded("the deadline passed before the model was asked"))
        path, began = f"/predictions/{model.server_name}", time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                response = await self._connection.ask("inference", "POST", path, timeout=None, **request_of(row))
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise about(model, DeadlineExceeded(f"{title} did not answer within the deadline")) from exc
        error = classify(response.status_code, response.content, model)
        if isinstance(error, WorkerDied):
            taken_s = time.monotonic() - began
            error = died_or_late(error, model, after_s=taken_s, within_s=answers_within_s(model))
        if error is not None:
            raise error
        return answer_of(response.status_code, response.content, response.headers)


def _description(model: ServedModel, found: Registered) -> Description:
    return Description(model.version, found.ready, found.workers)


def _check(model: ServedModel) -> None:
    """Return when the server may unpack an archive, which it does whatever comes out of it. Blocks.

    Raises:
        LoadFailed: It is no zip archive, or a bomb.
    """
    title = f"the archive of {model.name} {model.version} cannot be loaded"
    try:
        with zipfile.ZipFile(model.archive) as archive:
            expanded = sum(each.file_size for each in archive.infolist())
        problem = expansion_problem(model.archive.stat().st_size, expanded)
    except (OSError, zipfile.BadZipFile) as exc:
        raise about(model, LoadFailed(f"{title}: {clip(str(exc), 200)}")) from exc
    if problem is not None:
        raise about(model, LoadFailed(f"{title}: it {problem}"))


def _load_failed(model: ServedModel, refused: Refused) -> LoadFailed:
    why = clip(str(refused), 500)
    if refused.status == httpx.codes.NOT_FOUND:
        why = f"{why}: the server's model_store must be the directory that archive_store names"
    elif refused.status == httpx.codes.INTERNAL_SERVER_ERROR:
        why = f"{why}: the handler's traceback is in the server's log (mms_log.log)"
    return about(model, LoadFailed(f"{model.name} {model.version} cannot be loaded: {why}"))
