"""The model pool: each version's way from absent to ready, loaded once however many requests wait for it.

::

    absent ──▶ fetching ──▶ loading ──▶ ready
                   └───────────┴──▶ failed ──(after its pause)──▶ fetching
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from marway.deadline import Deadline
from marway.errors import Draining, LoadFailed, MarwayError, ModelLoading, RuntimeDown, Unavailable
from marway.records import ServingSettings, VersionRecord, utc_now
from marway.refs import server_name
from marway.wire.pods import ModelStatus, State
from marway_sidecar.adapters.base import ModelServer, NotLoaded, ServedModel
from marway_sidecar.archives import ArchiveStore
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads
from marway_sidecar.watch import Changes

__all__ = ["Lease", "ModelPool", "Warm"]

Warm = Callable[[ModelServer, ServedModel, VersionRecord, Deadline], Awaitable[None]]

logger = logging.getLogger(__name__)

_BACKOFF_MAX_S: Final = 300.0
_STATES: Final[tuple[State, ...]] = ("absent", "fetching", "loading", "ready", "draining", "failed")
_EXPECTED_LOAD_S: Final = 5.0  # said to callers until a load was measured


@dataclass
class _Entry:
    """One version: what is known of it here."""

    record: VersionRecord
    state: State = "absent"
    served: ServedModel | None = None
    loading: asyncio.Task[None] | None = None
    in_flight: int = 0
    workers: int = 0
    load_duration_s: float | None = None
    last_used_at: datetime | None = None
    failure: MarwayError | None = None
    failures: int = 0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send requests to a loaded version; while it is held the version is not unloaded."""

    server: ModelServer
    model: ServedModel


class ModelPool:
    """Loads versions on demand into the model server that is there.

    Args:
        archives: Where archives are fetched to.
        threads: Where blocking calls run.
        metrics: What is counted.
        settings: The pause after a failed load among them.
        warm: Called after each load, before `ready`.
    """

    def __init__(
        self,
        archives: ArchiveStore,
        threads: Threads,
        metrics: SidecarMetrics,
        *,
        settings: SidecarSettings,
        warm: Warm | None = None,
    ) -> None:
        self._archives = archives
        self._threads = threads
        self._metrics = metrics
        self._failure_backoff_s = settings.load_failure_backoff_s
        self._warm = warm
        self._changes = Changes()
        self._refusing = False
        self._entries: dict[str, _Entry] = {}
        self._server: ModelServer | None = None
        for state in _STATES:
            metrics.models.labels(state=state).set_function(partial(self._count, state))

    @property
    def server(self) -> ModelServer | None:
        """The model server that is up, if one is."""
        return self._server

    @property
    def in_flight(self) -> int:
        """Requests that hold a lease now."""
        return sum(entry.in_flight for entry in self._entries.values())

    def attach(self, server: ModelServer | None) -> None:
        """Use this model server from now on; whatever was loaded in the one before is gone with it."""
        self._server = server
        for entry in self._entries.values():
            if entry.loading is not None:
                entry.loading.cancel()
            entry.state, entry.loading, entry.workers = "absent", None, 0
            entry.failure, entry.retry_at = None, 0.0
        self._metrics.workers.clear()
        self._changes.bump()

    @property
    def generation(self) -> int:
        """Counts changes."""
        return self._changes.generation

    async def changed(self, since: int) -> int:
        """Wait for a change after ``since`` and return the count."""
        while not await self._changes.after(since, timeout_s=60):
            pass
        return self._changes.generation

    def refuse_loads(self) -> None:
        """Begin no load any more."""
        self._refusing = True

    def memory(self) -> tuple[int, int | None]:
        """Return bytes used and the budget."""
        return 0, None

    def status_of(self, record_id: str) -> ModelStatus | None:
        """Return one version's status."""
        entry = self._entries.get(record_id)
        return _status(entry) if entry is not None else None

    async def load(self, record: VersionRecord, serving: ServingSettings, deadline: Deadline) -> ModelStatus:
        """Have a version loaded."""
        async with self.lease(record, serving, deadline):
            return _status(self._entries[record.id])

    async def unload(self, record_id: str, deadline: Deadline) -> ModelStatus:
        """Drain a version and unload it."""
        entry = self._entries[record_id]
        if entry.state == "ready" and self._server is not None and entry.served is not None:
            entry.state = "draining"
            self._changes.bump()
            while entry.in_flight:  # noqa: ASYNC110 - until the pool's own rewrite
                await asyncio.sleep(0.01)
            await self._server.unload(entry.served)
            self._entries.pop(record_id)
            self._changes.bump()
            entry.state, entry.workers = "absent", 0
        return _status(entry)

    @contextlib.asynccontextmanager
    async def lease(self, record: VersionRecord, serving: ServingSettings, deadline: Deadline) -> AsyncIterator[Lease]:
        """Hold a version loaded, loading it first if need be.

        Args:
            record: The version.
            serving: How it is served now.
            deadline: How long to wait for a load; the load itself goes on without the caller.

        Raises:
            LoadFailed: It cannot be loaded, or could not a moment ago.
            ModelLoading: It is being loaded, and will not be ready in time.
            RuntimeDown: There is no model server.
        """
        entry = self._entries.setdefault(record.id, _Entry(record))
        while entry.state != "ready":
            await self._wait_for_load(entry, serving, deadline)
        assert entry.served is not None
        if self._server is None:
            raise RuntimeDown("TorchServe is down and being started again", model=record.name)
        entry.in_flight += 1
        self._metrics.in_flight.inc()
        entry.last_used_at = utc_now()
        try:
            yield Lease(self._server, entry.served)
        except NotLoaded:
            if entry.state == "ready":
                entry.state, entry.workers = "absent", 0
            raise
        finally:
            entry.in_flight -= 1
            self._metrics.in_flight.dec()

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return every version that was wanted here, by name and version."""
        entries = sorted(self._entries.values(), key=lambda entry: (entry.record.name, entry.record.version))
        return tuple(_status(entry) for entry in entries)

    async def aclose(self) -> None:
        """Stop loads that are under way; what is loaded stays in the model server."""
        tasks = [entry.loading for entry in self._entries.values() if entry.loading is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for_load(self, entry: _Entry, serving: ServingSettings, deadline: Deadline) -> None:
        if self._server is None:
            raise RuntimeDown("TorchServe is down and being started again", model=entry.record.name)
        if entry.failure is not None and time.monotonic() < entry.retry_at:
            raise entry.failure
        if entry.loading is None and self._refusing:
            raise Draining("this pod is stopping and loads nothing")
        if entry.loading is None:
            entry.loading = asyncio.create_task(
                self._load(entry, self._server, serving), name=f"load {entry.record.name} {entry.record.version}"
            )
            # Its failure is kept in the entry: nobody may be left waiting who would fetch it from the task.
            entry.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            # Shielded: one caller that leaves must not take the load from the others.
            await asyncio.wait_for(asyncio.shield(entry.loading), max(0.0, deadline.remaining()))
        except TimeoutError as exc:
            expected = entry.load_duration_s or _EXPECTED_LOAD_S
            raise ModelLoading(
                f"{entry.record.name} {entry.record.version} is being loaded and was not ready within the deadline",
                model=entry.record.name,
                version=entry.record.version,
                retry_after_s=expected,
            ) from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeDown("TorchServe went down during the load", model=entry.record.name) from exc

    async def _load(self, entry: _Entry, server: ModelServer, serving: ServingSettings) -> None:
        record = entry.record
        started = time.monotonic()
        outcome = "failed"
        try:
            entry.state = "fetching"
            path = await self._threads.run(self._archives.ensure, record.archive)
            entry.state = "loading"
            served = ServedModel(
                server_name=server_name(record.id),
                name=record.name,
                version=record.version,
                archive=path,
                workers=max(1, serving.min_workers),
                load_timeout_s=serving.load_timeout_s,
                predict_timeout_s=serving.predict_timeout_s,
                protocol=serving.protocol,
                streaming=serving.streaming,
                batch_rows=serving.max_batch_rows,
            )
            self._changes.bump()
            found = await server.load(served)
            if self._warm is not None:
                await self._warm(server, served, record, Deadline.after(serving.load_timeout_s))
            entry.served, entry.workers, entry.state = served, found.workers, "ready"
            entry.load_duration_s = time.monotonic() - started
            entry.failure, entry.failures = None, 0
            outcome = "ok"
            self._metrics.load_duration.observe(entry.load_duration_s)
            self._metrics.workers.labels(record.name, record.version, "plain").set(found.workers)
            logger.info("%s %s is ready after %.2f s", record.name, record.version, entry.load_duration_s)
        except asyncio.CancelledError:
            entry.state = "absent"
            raise
        except MarwayError as exc:
            entry.state = "failed"
            entry.failures += 1
            entry.failure = _remembered(exc)
            # What says nothing about the version (a store that is away) is tried again with the next request.
            pause = min(_BACKOFF_MAX_S, self._failure_backoff_s * 2 ** (entry.failures - 1))
            entry.retry_at = time.monotonic() + (0.0 if isinstance(exc, Unavailable) else pause)
            logger.error("%s", exc.message)
            raise
        finally:
            entry.loading = None
            self._changes.bump()
            self._metrics.loads.labels(record.name, record.version, outcome).inc()

    def _count(self, state: State) -> float:
        return float(sum(entry.state == state for entry in self._entries.values()))


def _remembered(error: MarwayError) -> MarwayError:
    """Return an equal error that can be raised again and again without growing a traceback."""
    if isinstance(error, LoadFailed):
        return LoadFailed(error.message, model=error.model, version=error.version)
    return error


def _status(entry: _Entry) -> ModelStatus:
    record = entry.record
    return ModelStatus(
        id=record.id,
        name=record.name,
        version=record.version,
        state=entry.state,
        workers=entry.workers,
        requests_in_flight=entry.in_flight,
        load_duration_s=entry.load_duration_s,
        last_used_at=entry.last_used_at,
        failure=entry.failure.message if entry.failure is not None and entry.state == "failed" else None,
        retry_after_s=max(0.0, entry.retry_at - time.monotonic()) if entry.state == "failed" else None,
    )
