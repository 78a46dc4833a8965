"""One attached model server, and every version that is wanted in it. A new server gets a new instance."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import Final

from marway.errors import MarwayError, Unavailable
from marway.records import VersionRecord
from marway.refs import server_name
from marway.serving import ServingSettings
from marway_sidecar.archives import Fetches
from marway_sidecar.backends.base import ModelServer
from marway_sidecar.changes import Changes
from marway_sidecar.errors import about, without_traceback
from marway_sidecar.lifecycle.actor import Actor
from marway_sidecar.lifecycle.entry import Context
from marway_sidecar.lifecycle.reconciler import Reconciler
from marway_sidecar.lifecycle.scaling import Autoscaler
from marway_sidecar.lifecycle.transitions import LoadListener, Transitions, Warm
from marway_sidecar.memory.budget import Memory
from marway_sidecar.memory.estimates import Estimates
from marway_sidecar.memory.eviction import Candidate
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.settings import SidecarSettings

__all__ = ["ServerInstance"]

_RESTORES_MAX: Final = 5
"""A version that so many model servers in a row did not survive to load is loaded when somebody asks for it: it may be
what they die of."""


class ServerInstance:
    """Everything that is true only while one model server is up.

    Args:
        fetches: Holds archives in the store.
        refusing: Whether loads are refused.
    """

    def __init__(
        self,
        server: ModelServer,
        *,
        settings: SidecarSettings,
        estimates: Estimates,
        metrics: SidecarMetrics,
        changes: Changes,
        fetches: Fetches,
        warm: Warm | None,
        load_ended: LoadListener | None,
        refusing: bool,
    ) -> None:
        self.over = False
        self.actors: dict[str, Actor] = {}
        self._names: dict[str, Actor] = {}
        self.memory = Memory(self, estimates, settings, server.info)
        cpus = settings.cpus or server.info.cpus or _cpu_count()
        self.context = Context(server, settings, cpus, self.memory, estimates, metrics, changes, refusing)
        self._autoscaler = Autoscaler(self.context, self.actors, forget=self._forget)
        reconciler = Reconciler(self.context, self._names)
        self.measure = reconciler.soon
        self._transitions = Transitions(self.context, fetches, reconciler.reconciled, warm, load_ended)
        self._tasks = [
            asyncio.create_task(reconciler.run(), name="pool reconciler"),
            asyncio.create_task(self._autoscaler.run(), name="pool autoscaler"),
        ]

    def actor(self, record: VersionRecord, serving: ServingSettings) -> Actor:
        """Return the actor of a version, with the serving settings of now.

        Raises:
            Unavailable: It is not loaded here, and is to be served by another kind of model server.
        """
        actor = self.actors.get(record.id)
        if actor is None or actor.entry.state == "absent":  # what is loaded goes on: gateways may not know better yet
            self._check_served(record, serving)
        if actor is None:
            queue_grew = partial(self._autoscaler.queue_grew, record.id)
            actor = Actor(record, serving, self._transitions, queue_grew=queue_grew)
            self.actors[record.id] = self._names[server_name(record.id)] = actor
        entry = actor.entry
        entry.asked_at = time.monotonic()
        before, entry.serving = entry.serving, serving
        if serving is not before and serving != before:
            self.context.changes.bump()
        return actor

    def succeed(self, before: ServerInstance) -> None:
        """Take over what another instance knew; what it had ready is loaded again, as far as memory is free.

        So is what it was itself still loading again: servers may go several times before all is as it was.
        """
        for old in sorted((actor.entry for actor in before.actors.values()), key=lambda entry: -entry.used_at):
            try:
                actor = self.actor(old.record, old.serving)
            except Unavailable:
                continue  # since it was loaded, its publisher chose another engine for it
            entry = actor.entry
            entry.used_at, entry.requested_at, entry.asked_at = old.used_at, old.requested_at, old.asked_at
            entry.load_duration_s, entry.restores = old.load_duration_s, old.restores
            if entry.restores:
                actor.want_load(spare=True)

    def _check_served(self, record: VersionRecord, serving: ServingSettings) -> None:
        """Refuse a version whose archive is for another kind of model server, or that is to be served by another."""
        serves, engine = self.context.server.serves, self.context.settings.backend
        title = f"{record.name} {record.version}"
        if record.backend not in serves:
            message = f"{title} is for the backend {record.backend!r}; this pod serves {', '.join(sorted(serves))}"
            raise about(record, Unavailable(message))
        if serving.engine not in (None, engine):
            message = (
                f"{title} is to be served by {serving.engine} (its serving setting `engine`); this pod is {engine}"
            )
            raise about(record, Unavailable(message))

    def close(self, error: MarwayError) -> None:
        """End all tasks at once and tell all who wait; calls in flight end by themselves."""
        self.over = True
        for task in self._tasks:
            task.cancel()
        for actor in self.actors.values():
            entry = actor.entry
            again_there = entry.answers or 0 < entry.restores < _RESTORES_MAX
            entry.restores = entry.restores + 1 if again_there else 0
            entry.state, entry.workers = "absent", 0
            entry.let_go()
            entry.scheduler.end(about(entry.record, without_traceback(error)))
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

    # What its memory asks of it: `Tenants`.

    def evictable(self) -> list[Candidate]:
        return [
            Candidate(
                key,
                self.memory.of(key),
                actor.entry.used_at,
                weights_bytes=actor.entry.weights_bytes,
                parked=actor.entry.parked,
            )
            for key, actor in self.actors.items()
            if actor.entry.state == "ready" and not actor.busy and actor.entry.idle and not actor.entry.serving.pinned
        ]

    def spare_workers(self) -> list[Candidate]:
        found: list[Candidate] = []
        for key, actor in self.actors.items():
            entry = actor.entry
            if entry.state == "ready" and not actor.busy and entry.workers > (least := entry.fewest):
                spare = (self.memory.of(key) - entry.weights_bytes) * (entry.workers - least) // entry.workers
                found.append(Candidate(key, spare, entry.used_at))
        return found

    def permanent(self) -> set[str]:
        return {key for key, actor in self.actors.items() if actor.entry.serving.pinned}

    def evict(self, key: str) -> None:
        self.actors[key].want_unload("memory")

    def park(self, key: str) -> None:
        self.actors[key].want_workers(0)

    def shrink(self, key: str) -> None:
        actor = self.actors[key]
        actor.want_workers(actor.entry.fewest)

    def _forget(self, actor: Actor) -> None:
        record = actor.entry.record
        forgotten = Unavailable("forgotten")
        actor.entry.scheduler.end(forgotten)
        actor.stop(forgotten)
        del self.actors[record.id], self._names[server_name(record.id)]
        self.context.metrics.forget(record.name, record.version)
        self.context.changes.bump()


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS
