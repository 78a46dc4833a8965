"""The pool as the rest of the sidecar sees it: leases, loads, unloads, and what there is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, Draining, ModelLoading, RuntimeDown
from marway.records import ServingSettings, VersionRecord
from marway.wire.envelope import Answer
from marway.wire.pods import ModelStatus
from marway_sidecar.api.body_budget import HeldBytes
from marway_sidecar.archives import ArchiveStore
from marway_sidecar.backends.base import ModelServer
from marway_sidecar.changes import Changes
from marway_sidecar.lifecycle.actor import Actor
from marway_sidecar.lifecycle.entry import Entry
from marway_sidecar.lifecycle.fetches import Fetches
from marway_sidecar.lifecycle.gauges import bind
from marway_sidecar.lifecycle.server_instance import Session, Warm
from marway_sidecar.memory.estimates import ESTIMATES_FILE, Estimates
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler.lease import Lease, leased
from marway_sidecar.scheduler.work import Work
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["ModelPool"]

_SAVE_S: Final = 10.0


class ModelPool:
    """Loads versions on demand into the model server that is there, within its memory.

    Args:
        archives: Where archives are fetched to.
        threads: Where blocking calls run.
        metrics: What is counted.
        settings: Budget, queues, times.
        changes: Told of every change that a `PodEvent` reports.
        warm: Called after each load and before anybody is let in; raises `LoadFailed` to refuse the version.
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
    ) -> None:
        self._fetches = Fetches(archives, threads)
        self._threads = threads
        self._metrics = metrics
        self._settings = settings
        self._warm = warm
        self._changes = changes
        self._estimates = Estimates(
            worker_base_bytes=settings.worker_base_bytes,
            archive_factor=settings.archive_memory_factor,
            load_s=settings.expected_load_s,
        )
        self._estimates_file = settings.runtime_dir / ESTIMATES_FILE
        self._estimates.read(self._estimates_file)
        self._session: Session | None = None  # the last one, also while no server is up
        self._ended: list[Session] = []
        self._refusing = False
        self._saving: asyncio.Task[None] | None = None
        bind(metrics, entries=self._sizes, budget=lambda: self.memory()[1], in_flight=lambda: self.in_flight)

    @property
    def server(self) -> ModelServer | None:
        """The model server that is up, if one is."""
        return self._session.server if self._session is not None and not self._session.over else None

    @property
    def in_flight(self) -> int:
        """Calls whose work has not ended."""
        return sum(actor.entry.gate.in_flight for actor in self._actors)

    def attach(
        self, server: ModelServer | None, *, memory_limit_bytes: int | None = None, cpus: int | None = None
    ) -> None:
        """Use this model server from now on; whatever was loaded in the one before is gone with it.

        What was ready there is loaded again, as far as memory is free.

        Args:
            server: The model server, or None while there is none.
            memory_limit_bytes: What it and its workers may take, as its runtime says.
            cpus: Processors that its workers may use, as its runtime says.
        """
        old = self._session
        if old is not None and not old.over:
            old.close(RuntimeDown("the model server went down and is being started again"))
            self._ended = [session for session in self._ended if not session.ended] + [old]
            self._metrics.workers.clear()
            self._metrics.runtime_workers.clear()
        if server is not None:
            self._metrics.runtime_starts.inc()
            self._session = Session(
                server,
                limit_bytes=memory_limit_bytes,
                cpus=cpus,
                settings=self._settings,
                estimates=self._estimates,
                metrics=self._metrics,
                changes=self._changes,
                fetch=self._fetches.hold,
                warm=self._warm,
                refusing=lambda: self._refusing,
            )
            if old is not None:
                self._session.succeed(old)
            if self._saving is None:
                self._saving = asyncio.create_task(self._save_for_ever(), name="pool estimates")
        self._changes.bump()

    def refuse_loads(self) -> None:
        """Load nothing from now on; what is loaded goes on being served."""
        self._refusing = True

    def lease(
        self,
        record: VersionRecord,
        serving: ServingSettings,
        deadline: Deadline,
        *,
        group: str = "",
        body: HeldBytes | None = None,
    ) -> contextlib.AbstractAsyncContextManager[Lease]:
        """Hold a version loaded and one slot of it, loading it and waiting in its queue first if need be.

        Args:
            record: The version.
            serving: How it is served now.
            deadline: How long to wait; a load goes on without the caller.
            group: As `Work` has it.
            body: As `Work` has it.

        Raises:
            LoadFailed: It cannot be loaded, or could not a moment ago.
            ModelLoading: It is being loaded, and will not be ready in time.
            DeadlineExceeded: Its workers were busy until the deadline.
            Overloaded: Too many wait for it.
            Unavailable: There is no memory for it, or its calls keep failing.
            Draining: It is not loaded, and the pod stops.
            RuntimeDown: There is no model server.
        """
        session = self._up(record)
        count = self._metrics.count_said(record.name, record.version)
        return leased(session, session.actor(record, serving), deadline, group=group, body=body, streamed=count)

    async def predict(self, record: VersionRecord, serving: ServingSettings, work: Work) -> list[Answer]:
        """Return the answers to ``work``, in the order of its rows; raises as `lease` and `ModelServer.predict` do.

        Work that waits may go into one call with that of others, and is not harmed by what they do. A caller who
        leaves takes it out of the queue; what the model server was given goes on, and holds its slot until it ends.
        """
        end = self.begin(record, serving, work)
        try:
            return await work.future
        finally:
            end()

    def begin(self, record: VersionRecord, serving: ServingSettings, work: Work) -> Callable[[], None]:
        """Begin what `predict` does, for a caller who has no task to wait in.

        Returns:
            What has to be called when ``work.future`` is done, or nobody waits for it any more.

        Raises:
            MarwayError: As `predict`, when it is known at once; then nothing was begun.
        """
        session = self._up(record)
        actor = session.actor(record, serving)
        entry = actor.entry
        entry.ask_breaker()
        entry.used_at, entry.requested_at = work.since, time.time()
        try:
            session.entrance.begin(actor, work)
        except BaseException:
            entry.breaker.left()
            raise
        return partial(_end, session, actor, work)

    async def load(self, record: VersionRecord, serving: ServingSettings, deadline: Deadline) -> ModelStatus:
        """Return a version's status once it is loaded with at least one worker; raises as `lease` does."""
        session = self._up(record)
        actor = session.actor(record, serving)
        entry = actor.entry
        if entry.state == "ready" and entry.workers and not actor.busy:
            return entry.status(session.memory.of(entry.key))
        session.entrance.check_load(actor, deadline)
        try:
            async with asyncio.timeout(max(0.0, deadline.remaining())):
                return await actor.loaded()
        except TimeoutError as exc:
            raise ModelLoading(
                f"{entry.title} is being loaded and was not ready within the deadline",
                model=record.name,
                version=record.version,
                retry_after_s=max(1.0, session.entrance.expected_s(actor)),
            ) from exc

    async def unload(self, record_id: str, deadline: Deadline) -> ModelStatus:
        """Drain a version, unload it and return its status then; one that is not there is no error.

        Raises:
            DeadlineExceeded: Requests were still in flight; the drain goes on.
            RuntimeDown: The model server went away.
        """
        actor = self._session.actors.get(record_id) if self._session is not None else None
        if actor is None or self._session is None:
            return ModelStatus(id=record_id, name="", version="", state="absent")
        entry = actor.entry
        self._session.leave_out(entry)
        if self._session.over or (entry.state in ("absent", "failed") and not actor.busy):
            return entry.status(0)
        try:
            async with asyncio.timeout(max(0.0, deadline.remaining())):
                return await actor.unloaded()
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"{entry.title} still has {entry.gate.in_flight} requests in flight; it is unloaded after them",
                model=entry.record.name,
                version=entry.record.version,
            ) from exc

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return every version that was wanted here, by name and version."""
        entries = sorted(
            (actor.entry for actor in self._actors), key=lambda entry: (entry.record.name, entry.record.version)
        )
        return tuple(self._status(entry) for entry in entries)

    def status_of(self, record_id: str) -> ModelStatus | None:
        """Return the status of a version, None of one that nobody wanted here."""
        actor = self._session.actors.get(record_id) if self._session is not None else None
        return self._status(actor.entry) if actor is not None else None

    def memory(self) -> tuple[int, int | None]:
        """Return the bytes that versions take, reserved or measured, and the budget; None means no limit is known."""
        if self._session is None:
            return 0, self._settings.memory_budget_bytes
        return self._session.memory.used, self._session.memory.budget

    async def aclose(self) -> None:
        """Stop loads that are under way; what is loaded stays in the model server. A second time does nothing."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
            self._saving = None
        if self._session is not None and not self._session.over:
            self._session.close(Draining("this pod is stopping"))
            self._ended.append(self._session)
        ended, self._ended = self._ended, []
        for session in ended:
            await session.closed()
        await self._fetches.aclose()
        if self._estimates.changed:
            self._estimates.write(self._estimates_file, self._estimates.dump())

    @property
    def _actors(self) -> Iterable[Actor]:
        return self._session.actors.values() if self._session is not None else ()

    def _up(self, record: VersionRecord) -> Session:
        if self._session is None or self._session.over:
            raise RuntimeDown(
                "the model server is down and being started again", model=record.name, version=record.version
            )
        return self._session

    def _status(self, entry: Entry) -> ModelStatus:
        assert self._session is not None
        return entry.status(self._session.memory.of(entry.key))

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            if self._estimates.changed:
                await self._threads.run(self._estimates.write, self._estimates_file, self._estimates.dump())

    def _sizes(self) -> list[tuple[Entry, int]]:
        if self._session is None:
            return []
        memory = self._session.memory
        return [(actor.entry, memory.of(actor.entry.key)) for actor in self._actors]


def _end(session: Session, actor: Actor, work: Work) -> None:
    session.entrance.end(actor, work)
    if not work.started:
        actor.entry.breaker.left()
    actor.entry.used_at = time.monotonic()
