"""One attached model server, and every version that is wanted in it. A new server gets a new session."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from marway.deadline import Deadline
from marway.errors import (
    DeadlineExceeded,
    Draining,
    MarwayError,
    ModelLoading,
    Overloaded,
    Unavailable,
)
from marway.records import ServingSettings, VersionRecord
from marway.refs import server_name
from marway_sidecar.adapters.base import ModelServer
from marway_sidecar.changes import Changes
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.pool.actor import Actor
from marway_sidecar.pool.breaker import Breaker
from marway_sidecar.pool.entry import Entry, HeldArchive
from marway_sidecar.pool.estimates import Estimates
from marway_sidecar.pool.eviction import Candidate
from marway_sidecar.pool.failures import about, again
from marway_sidecar.pool.gate import Gate, QueueFull, Slot
from marway_sidecar.pool.memory import Memory
from marway_sidecar.pool.scaling import Demand
from marway_sidecar.pool.survey import Survey
from marway_sidecar.pool.transitions import Transitions, Warm
from marway_sidecar.pool.upkeep import Upkeep
from marway_sidecar.settings import SidecarSettings

__all__ = ["Session", "Warm"]


class Session:
    """Everything that is true only while one model server is up.

    Args:
        server: The model server.
        limit_bytes: Memory that it and its workers may take, as its runtime says; None when that is not known.
        cpus: Processors that its workers may use; None when that is not known.
        fetch: Holds a version's archive in the store, fetching it if need be.
        refusing: Whether loads are refused.
    """

    def __init__(
        self,
        server: ModelServer,
        *,
        limit_bytes: int | None,
        cpus: int | None,
        settings: SidecarSettings,
        estimates: Estimates,
        metrics: SidecarMetrics,
        changes: Changes,
        fetch: Callable[[VersionRecord], Awaitable[HeldArchive]],
        warm: Warm | None,
        refusing: Callable[[], bool],
    ) -> None:
        self.server = server
        self.over = False
        self._limit_bytes = limit_bytes
        self._settings = settings
        self._estimates = estimates
        self._metrics = metrics
        self._refusing = refusing
        self._changes = changes
        self._cpus = settings.cpus or cpus or _cpu_count()
        self.actors: dict[str, Actor] = {}
        self.ready_at_end: list[Entry] = []
        self._names: dict[str, Actor] = {}
        self._upkeep = Upkeep(self.actors, settings, cpus=self._cpus, forget=self._forget)
        self.memory = Memory(
            candidates=self._evictable,
            permanent=lambda: {actor.entry.key for actor in self.actors.values() if actor.entry.serving.pinned},
            evict=lambda key: self.actors[key].want_unload("memory"),
            measure=lambda: self._survey.soon(),
            unused_s=settings.scale_down_s,
            retry_after_s=lambda: estimates.load_s(""),
        )
        self._survey = Survey(
            server,
            self._names,
            memory=self.memory,
            estimates=estimates,
            metrics=metrics,
            changes=changes,
            interval_s=settings.survey_interval_s,
            budget=self._budget,
        )
        self._transitions = Transitions(
            server=server,
            settings=settings,
            cpus=self._cpus,
            memory=self.memory,
            estimates=estimates,
            metrics=metrics,
            changes=changes,
            fetch=fetch,
            looked=self._survey.looked,
            vacated=self._survey.vacated,
            warm=warm,
            settled=self._settled,
        )
        if limit_bytes is not None or settings.memory_budget_bytes is not None:
            self.memory.budget = self._budget(0)
        self._tasks = [
            asyncio.create_task(self._survey.run(), name="pool survey"),
            asyncio.create_task(self._upkeep.run(), name="pool upkeep"),
        ]

    def actor(self, record: VersionRecord, serving: ServingSettings) -> Actor:
        """Return the actor of a version, with the serving settings of now."""
        actor = self.actors.get(record.id)
        if actor is None:
            actor = Actor(self._entry(record, serving), self._transitions, refusing=self._refusing)
            self.actors[record.id] = self._names[server_name(record.id)] = actor
        entry = actor.entry
        entry.asked_at = time.monotonic()
        if serving is not entry.serving and serving != entry.serving:
            entry.serving = serving
            self._changes.bump()
        return actor

    async def enter(self, actor: Actor, deadline: Deadline) -> Slot:
        """Return a slot of a version that is loaded, loading it first if need be.

        Raises:
            MarwayError: As `ModelPool.lease`.
        """
        entry = actor.entry
        slot = entry.gate.enter()
        if slot is not None:
            return slot
        if not (entry.state == "ready" and entry.workers):
            self.check_load(actor, deadline)
            actor.want_load()
        try:
            return await entry.gate.wait(deadline, late=lambda since: self._late(actor, since))
        except QueueFull:
            raise Overloaded(
                f"{self._settings.queue_limit} requests wait for {entry.title} already",
                model=entry.record.name,
                version=entry.record.version,
                retry_after_s=entry.gate.expected_wait_s() or self.expected_s(actor),
            ) from None

    def check_load(self, actor: Actor, deadline: Deadline) -> None:
        """Return when it makes sense to wait for a version that is not loaded; its load is begun in any case.

        Raises:
            LoadFailed: It failed, and its pause is not over.
            ModelLoading: The load will take longer than the deadline leaves.
            Draining: The pod stops.
        """
        entry = actor.entry
        if entry.state == "failed" and entry.retrying_later:
            assert entry.failure is not None
            raise again(entry.failure.error)
        if self._refusing() and entry.load_began is None:
            raise about(entry.record, Draining("this pod is stopping and loads nothing any more"))
        expected = self.expected_s(actor)
        if expected > deadline.remaining():
            actor.want_load()
            error = ModelLoading(
                f"{entry.title} is being loaded, which takes {expected:.1f} s more: longer than the deadline leaves",
                retry_after_s=expected,
            )
            raise about(entry.record, error)

    def expected_s(self, actor: Actor) -> float:
        """Return how long a version that is not loaded should still take, by measured loads, in seconds."""
        entry = actor.entry
        elapsed = time.monotonic() - entry.load_began if entry.load_began is not None else 0.0
        return max(0.0, self._estimates.load_s(entry.key) - elapsed)

    def succeed(self, before: Session) -> None:
        """Take over what another session knew; what it had ready is loaded again, as far as memory is free."""
        ready = sorted(before.ready_at_end, key=lambda entry: -entry.used_at)
        for old in (actor.entry for actor in before.actors.values()):
            entry = self.actor(old.record, old.serving).entry
            entry.used_at, entry.last_used_at, entry.asked_at = old.used_at, old.last_used_at, old.asked_at
            entry.load_duration_s = old.load_duration_s
        for old in ready:
            self.actors[old.key].want_load(spare=True)

    def close(self, error: MarwayError) -> None:
        """End all tasks at once and tell all who wait; calls in flight end by themselves."""
        self.over = True
        for task in self._tasks:
            task.cancel()
        self._upkeep.close()
        for actor in self.actors.values():
            entry = actor.entry
            if entry.state == "ready" and entry.workers:
                self.ready_at_end.append(entry)
            entry.gate.close()
            entry.state, entry.workers = "absent", 0
            entry.let_go()
            actor.stop(error)
        self.memory.clear()

    @property
    def ended(self) -> bool:
        """Whether it is over and all its tasks have ended."""
        return all(task.done() for task in self._tasks) and all(actor.ended for actor in self.actors.values())

    async def closed(self) -> None:
        """Return once all tasks have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for actor in self.actors.values():
            await actor.stopped()

    def _entry(self, record: VersionRecord, serving: ServingSettings) -> Entry:
        settings = self._settings
        return Entry(
            record=record,
            serving=serving,
            gate=Gate(
                limit=settings.queue_limit,
                waited=self._metrics.queue_duration.observe,
                became_idle=self._room,
                queued=lambda: self._upkeep.queued(record.id),
            ),
            breaker=Breaker(failures=settings.breaker_failures, open_s=settings.breaker_open_s),
            demand=Demand(settings.scale_down_s),
        )

    def _late(self, actor: Actor, since: float) -> MarwayError:
        entry = actor.entry
        if entry.state == "ready" and entry.workers:
            if entry.gate.last_end < since:
                entry.breaker.failed()  # nothing moved while it waited: its workers hang
            return about(entry.record, DeadlineExceeded(f"{entry.title} was busy until the deadline had passed"))
        if self.memory.of(entry.key) == 0 and self.memory.wanted and entry.state == "loading":
            return about(
                entry.record,
                Unavailable(
                    f"{entry.title} waits for memory that other versions are using",
                    retry_after_s=self._estimates.load_s(entry.key),
                ),
            )
        return about(
            entry.record,
            ModelLoading(
                f"{entry.title} is being loaded and was not ready within the deadline",
                retry_after_s=max(self.expected_s(actor), 1.0),
            ),
        )

    def _budget(self, base_bytes: int) -> int | None:
        settings = self._settings
        if settings.memory_budget_bytes is not None:
            return settings.memory_budget_bytes
        if self._limit_bytes is None:
            return None
        return max(0, self._limit_bytes - base_bytes - settings.memory_reserve_bytes)

    def _evictable(self) -> list[Candidate]:
        return [
            Candidate(key, self.memory.of(key), actor.entry.used_at)
            for key, actor in self.actors.items()
            if actor.entry.state == "ready"
            and not actor.busy
            and actor.entry.gate.idle
            and not actor.entry.serving.pinned
        ]

    def _room(self) -> None:
        if self.memory.wanted or (self.memory.budget is not None and self.memory.used > self.memory.budget):
            self.memory.pump()

    def _settled(self, entry: Entry) -> None:
        self._survey.soon()
        self._room()

    def _forget(self, actor: Actor) -> None:
        record = actor.entry.record
        actor.stop(Unavailable("forgotten"))
        del self.actors[record.id], self._names[server_name(record.id)]
        self._upkeep.forget(record.id)
        self._metrics.forget(record.name, record.version)
        self._changes.bump()


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS
