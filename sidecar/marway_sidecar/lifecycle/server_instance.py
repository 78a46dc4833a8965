"""One attached model server, and every version that is wanted in it. A new server gets a new session."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

from marway.errors import (
    MarwayError,
    Unavailable,
)
from marway.records import ServingSettings, VersionRecord
from marway.refs import server_name
from marway_sidecar.backends.base import ModelServer, check_served
from marway_sidecar.changes import Changes
from marway_sidecar.lifecycle.actor import Actor
from marway_sidecar.lifecycle.autoscaler import Upkeep
from marway_sidecar.lifecycle.entry import Entry, HeldArchive
from marway_sidecar.lifecycle.failures import about, again
from marway_sidecar.lifecycle.reconciler import Survey
from marway_sidecar.lifecycle.scaling import Demand, bounds
from marway_sidecar.lifecycle.transitions import Transitions, Warm
from marway_sidecar.memory.budget import Memory
from marway_sidecar.memory.estimates import Estimates
from marway_sidecar.memory.eviction import Candidate
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler.admission import Entrance
from marway_sidecar.scheduler.batching import Batcher
from marway_sidecar.scheduler.breaker import Breaker
from marway_sidecar.scheduler.scheduler import Gate
from marway_sidecar.settings import SidecarSettings

__all__ = ["Session", "Warm"]

_RESTORES_MAX: Final = 5
"""A version that so many model servers in a row did not survive to load is loaded when somebody asks for it: it may be
what they die of."""


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
        self.to_restore: list[Entry] = []
        self._names: dict[str, Actor] = {}
        self._upkeep = Upkeep(self.actors, settings, cpus=self._cpus, forget=self._forget)
        self.memory = Memory(
            candidates=self._evictable,
            spare_workers=self._spare_workers,
            permanent=lambda: {actor.entry.key for actor in self.actors.values() if actor.entry.serving.pinned},
            evict=lambda key: self.actors[key].want_unload("memory"),
            shrink=lambda key: self.actors[key].want_workers(_fewest(self.actors[key])),
            measure=lambda: self._survey.soon(),
            unused_s=settings.scale_down_s,
            retry_after_s=lambda: estimates.load_s(""),
        )
        self.entrance = Entrance(self.memory, estimates, settings, metrics, refusing=refusing)
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
            check_served(self.server, record)
            actor = Actor(self._entry(record, serving), self._transitions, refusing=self._refusing)
            self.actors[record.id] = self._names[server_name(record.id)] = actor
        entry = actor.entry
        entry.asked_at = time.monotonic()
        if serving is not entry.serving and serving != entry.serving:
            entry.serving = serving
            self._changes.bump()
        return actor

    def succeed(self, before: Session) -> None:
        """Take over what another session knew; what it had ready is loaded again, as far as memory is free.

        So is what it was itself still loading again: servers may go several times before all is as it was.
        """
        ready = sorted(before.to_restore, key=lambda entry: -entry.used_at)
        for old in (actor.entry for actor in before.actors.values()):
            entry = self.actor(old.record, old.serving).entry
            entry.used_at, entry.requested_at, entry.asked_at = old.used_at, old.requested_at, old.asked_at
            entry.load_duration_s = old.load_duration_s
        for old in ready:
            actor = self.actors[old.key]
            actor.entry.restores = old.restores + 1
            actor.want_load(spare=True)

    def leave_out(self, entry: Entry) -> None:
        """Load a version no more by itself, in this session or after it: it is to be unloaded."""
        entry.restores = 0
        if entry in self.to_restore:
            self.to_restore.remove(entry)

    def close(self, error: MarwayError) -> None:
        """End all tasks at once and tell all who wait; calls in flight end by themselves."""
        self.over = True
        for task in self._tasks:
            task.cancel()
        self._upkeep.close()
        for actor in self.actors.values():
            entry = actor.entry
            if (entry.state == "ready" and entry.workers) or 0 < entry.restores < _RESTORES_MAX:
                self.to_restore.append(entry)
            entry.state, entry.workers = "absent", 0
            entry.let_go()
            entry.gate.end(about(entry.record, again(error)))
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
        breaker = Breaker(failures=settings.breaker_failures, open_s=settings.breaker_open_s)
        gate = Gate(
            limit=settings.queue_limit,
            batch=lambda: (entry.serving.max_batch_rows if self.server.batches else 1, entry.serving.max_batch_bytes),
            run=lambda slot, works: batcher.run(slot, works),
            waited=self._metrics.queue_duration.observe,
            became_idle=self._room,
            queued=lambda: self._upkeep.queued(record.id),
            full=lambda: self.entrance.full(self.actors[record.id]),
        )
        entry = Entry(record=record, serving=serving, gate=gate, breaker=breaker, demand=Demand(settings.scale_down_s))
        batcher = Batcher(
            self.server,
            served=lambda: entry.served,
            gate=gate,
            breaker=breaker,
            lost=lambda: self.actors[record.id].lose(),
            retry_rows=lambda: entry.serving.retry_rows,
            observe=self._metrics.batch_rows.observe,
            answered=self._metrics.count_said(record.name, record.version),
        )
        return entry

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

    def _spare_workers(self) -> list[Candidate]:
        """Return the versions with more workers than their fewest, with what those beyond take."""
        found: list[Candidate] = []
        for key, actor in self.actors.items():
            entry = actor.entry
            if entry.state == "ready" and not actor.busy and entry.workers > (least := _fewest(actor)):
                spare = self.memory.of(key) * (entry.workers - least) // entry.workers
                found.append(Candidate(key, spare, entry.used_at))
        return found

    def _room(self) -> None:
        if self.memory.wanted or (self.memory.budget is not None and self.memory.used > self.memory.budget):
            self.memory.pump()

    def _settled(self, entry: Entry) -> None:
        self._survey.soon()
        self._room()

    def _forget(self, actor: Actor) -> None:
        record = actor.entry.record
        forgotten = Unavailable("forgotten")
        actor.entry.gate.end(forgotten)
        actor.stop(forgotten)
        del self.actors[record.id], self._names[server_name(record.id)]
        self._upkeep.forget(record.id)
        self._metrics.forget(record.name, record.version)
        self._changes.bump()


def _fewest(actor: Actor) -> int:
    """Return how many workers a version that is loaded keeps whatever others want."""
    least, _ = bounds(actor.entry.serving, cpus=1)
    return max(1, least)


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS
