"""The pool as the rest of the sidecar sees it: predictions, loads, unloads, and what there is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Final

from marway.archive_store import ArchiveStore
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, Draining, MarwayError, RuntimeDown
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.envelope import Answer
from marway.wire.pods import ModelStatus
from marway.wire.runtime import DeviceMemory
from marway_sidecar.archives import Fetches
from marway_sidecar.backends.base import ModelServer
from marway_sidecar.changes import Changes
from marway_sidecar.errors import about
from marway_sidecar.lifecycle.actor import Actor
from marway_sidecar.lifecycle.gauges import PoolGauges
from marway_sidecar.lifecycle.server_instance import ServerInstance
from marway_sidecar.lifecycle.transitions import LoadListener, Warm
from marway_sidecar.memory.estimates import Estimates
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler import Job, StreamJob
from marway_sidecar.scheduler.scheduler import Scheduler
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["ModelPool"]

_SAVE_S: Final = 10.0


class ModelPool:
    """Loads versions on demand into the model server that is there, within its memory.

    Args:
        changes: Told of every change that a `PodEvent` reports.
        warm: Called after each load and before anybody is let in; raises `LoadFailed` to refuse the version.
        load_ended: Called at the end of each load.
    """

    def __init__(
        self,
        archives: ArchiveStore,
        threads: Threads,
        metrics: SidecarMetrics,
        *,
        settings: SidecarSettings,
        changes: Changes,
        warm: Warm | None = None,
        load_ended: LoadListener | None = None,
    ) -> None:
        self._fetches = Fetches(archives, threads)
        self._threads = threads
        self._metrics = metrics
        self._settings = settings
        self._warm = warm
        self._load_ended = load_ended
        self._changes = changes
        self._estimates = Estimates(settings)
        self._instance: ServerInstance | None = None  # the last one, also while no server is up
        self.wanted: Mapping[str, Actor] = {}
        """Versions that are wanted in the model server that is up, by id."""
        self._ended: list[ServerInstance] = []
        self._refusing = False
        self._saving: asyncio.Task[None] | None = None
        metrics.registry.register(PoolGauges(self.statuses, self.memory, self.devices))

    @property
    def server(self) -> ModelServer | None:
        """The model server that is up, if one is."""
        return self._instance.context.server if self._instance is not None and not self._instance.over else None

    @property
    def in_flight(self) -> int:
        """Calls whose work has not ended."""
        return sum(actor.entry.scheduler.in_flight for actor in self._actors.values())

    def attach(self, server: ModelServer | None) -> None:
        """Use this model server from now on, none while it is None; what was loaded in the one before is gone with it.

        What was ready there is loaded again, as far as memory is free.
        """
        old = self._instance
        if self._end(RuntimeDown("the model server went down and is being started again")):
            self._metrics.server_down()
        if server is not None:
            self._metrics.server_up(server.info.versions)
            self._instance = ServerInstance(
                server,
                settings=self._settings,
                estimates=self._estimates,
                metrics=self._metrics,
                changes=self._changes,
                fetches=self._fetches,
                warm=self._warm,
                load_ended=self._load_ended,
                refusing=self._refusing,
            )
            if old is not None:
                self._instance.succeed(old)
            self.wanted = self._instance.actors
            if self._saving is None:
                self._saving = asyncio.create_task(self._save_for_ever(), name="pool estimates")
        self._changes.bump()

    def refuse_loads(self) -> None:
        """Load nothing from now on; what is loaded goes on being served."""
        self._refusing = True
        if self._instance is not None:
            self._instance.context.refusing = True

    @contextlib.contextmanager
    def hold(self, record: VersionRecord, serving: ServingSettings) -> Iterator[None]:
        """Keep a version, once it is loaded, from being unloaded for other versions' memory or because it is idle.

        Raises:
            RuntimeDown: There is no model server.
        """
        actor = self._up(record).actor(record, serving)
        actor.entry.holds += 1
        try:
            yield
        finally:
            actor.entry.holds -= 1
            if actor.entry.memory.short:
                actor.entry.memory.pump()

    async def predict(self, record: VersionRecord, serving: ServingSettings, job: Job) -> list[Answer]:
        """Return the answers to ``job``, in the order of its rows, loading the version first if need be.

        A job that waits may go into one call with others, and is not harmed by what they do. A caller who leaves takes
        it out of the queue; what the model server was given goes on, and holds its slot until it ends.

        Raises:
            LoadFailed: It cannot be loaded, or could not a moment ago.
            ModelLoading: It is being loaded, and will not be ready in time.
            DeadlineExceeded: Its workers were busy until the deadline, or did not answer within it.
            Overloaded: Too many wait for it.
            Unavailable: There is no memory for it, or its calls keep failing.
            Draining: It is not loaded, and the pod stops.
            RuntimeDown: There is no model server.
            MarwayError: As `ModelServer.predict`.
        """
        with self._submitted(record, serving, job):
            return await job.future

    async def stream(
        self, record: VersionRecord, serving: ServingSettings, job: StreamJob
    ) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to ``job``; raises as `predict` and `ModelServer.predict_stream` do.

        Pieces that nobody takes any more are read and dropped, until the handler has ended: so long it holds its slot.
        """
        with self._submitted(record, serving, job), contextlib.closing(job):
            while (piece := await job.next()) is not None:
                yield piece

    @contextlib.contextmanager
    def _submitted(self, record: VersionRecord, serving: ServingSettings, job: Job) -> Iterator[None]:
        scheduler = self.scheduler(record, serving)
        scheduler.submit(job)
        try:
            yield
        finally:
            scheduler.leave(job)

    def scheduler(self, record: VersionRecord, serving: ServingSettings) -> Scheduler:
        """Return what has requests for a version done, which is served so from now on.

        Raises:
            RuntimeDown: There is no model server.
            Unavailable: It is of another kind than the version is for.
        """
        return self._up(record).actor(record, serving).entry.scheduler

    async def load(self, record: VersionRecord, serving: ServingSettings, deadline: Deadline) -> ModelStatus:
        """Return a version's status once it is loaded with at least one worker; raises as `predict` does."""
        actor = self._up(record).actor(record, serving)
        if actor.entry.answers and not actor.busy:
            return actor.entry.status()
        actor.entry.check_load(deadline)
        try:
            async with asyncio.timeout(max(0.0, deadline.left_s())):
                return await actor.loaded()
        except TimeoutError as exc:
            raise actor.entry.load_late() from exc

    async def unload(self, record_id: str, deadline: Deadline) -> ModelStatus:
        """Drain a version, unload it and return its status then; one that is not there is no error.

        Raises:
            DeadlineExceeded: Requests were still in flight; the drain goes on.
            RuntimeDown: The model server went away.
        """
        actor = self._actors.get(record_id)
        if actor is None or self._instance is None:
            return ModelStatus(id=record_id, name="", version="", state="absent")
        entry = actor.entry
        entry.restores = 0
        if self._instance.over or (entry.state in ("absent", "failed") and not actor.busy):
            return actor.entry.status()
        try:
            async with asyncio.timeout(max(0.0, deadline.left_s())):
                return await actor.unloaded()
        except TimeoutError as exc:
            still = f"{entry.title} still has {entry.scheduler.in_flight} requests in flight"
            raise about(entry.record, DeadlineExceeded(f"{still}; it is unloaded after them")) from exc

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return every version that was wanted here, by name and version."""
        statuses = (actor.entry.status() for actor in self._actors.values())
        return tuple(sorted(statuses, key=lambda status: (status.name, status.version)))

    def status_of(self, record_id: str) -> ModelStatus | None:
        """Return the status of a version, None of one that nobody wanted here."""
        actor = self._actors.get(record_id)
        return actor.entry.status() if actor is not None else None

    def memory(self) -> tuple[int, int | None]:
        """Return the bytes that versions take, reserved or measured, and the budget; None means no limit is known."""
        if self._instance is None:
            return 0, self._settings.memory_budget_bytes
        return self._instance.memory.used, self._instance.memory.budget

    def devices(self) -> tuple[DeviceMemory, ...]:
        """Return the GPUs of the model server that is up, as they were measured last."""
        return self._instance.memory.devices.all if self._instance is not None else ()

    async def aclose(self) -> None:
        """Stop loads that are under way; what is loaded stays in the model server. A second time does nothing."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
            self._saving = None
        self._end(Draining("this pod is stopping"))
        ended, self._ended = self._ended, []
        for instance in ended:
            await instance.closed()
        await self._fetches.aclose()
        if (data := self._estimates.changes()) is not None:
            self._estimates.write(data)

    @property
    def _actors(self) -> Mapping[str, Actor]:
        return self._instance.actors if self._instance is not None else {}

    def _end(self, error: MarwayError) -> bool:
        """End the instance that is up; return whether one was."""
        instance, self.wanted = self._instance, {}
        if instance is None or instance.over:
            return False
        instance.close(error)
        self._ended = [*(each for each in self._ended if not each.ended), instance]
        return True

    def _up(self, record: VersionRecord) -> ServerInstance:
        if self._instance is None or self._instance.over:
            raise about(record, RuntimeDown("the model server is down and being started again"))
        return self._instance

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            if (data := self._estimates.changes()) is not None:
                await self._threads.run(self._estimates.write, data)
