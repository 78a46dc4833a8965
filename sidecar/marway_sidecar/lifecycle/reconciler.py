"""Looks at what the model server really has: measures memory, counts workers by mode, and reconciles.

A sidecar that was killed leaves versions registered that its successor knows nothing of: they are unregistered, for
their memory is in nobody's books; one that is wanted meanwhile is taken over by its load, which describes before it
registers. A version that we count as loaded and the server does not have counts as absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from marway.errors import MarwayError
from marway_sidecar.backends.base import ServedModel, ServerStatus, WorkerStatus
from marway_sidecar.lifecycle.actor import Actor
from marway_sidecar.lifecycle.entry import Context

__all__ = ["Reconciler"]

logger = logging.getLogger(__name__)

_SPACING_S: Final = 0.2  # loads that follow one another are measured together


class Reconciler:
    """Looks now and then, and soon after something changed; ``actors`` go by their versions' names in the server."""

    def __init__(self, context: Context, actors: Mapping[str, Actor]) -> None:
        self._context = context
        self._interval_s = context.settings.survey_interval_s
        self._actors = actors
        self._soon = asyncio.Event()
        self._looked = asyncio.Event()
        self._purges: dict[str, asyncio.Event] = {}
        self._short_since: dict[str, float] = {}

    def soon(self) -> None:
        """Look again shortly."""
        self._soon.set()

    async def reconciled(self, name: str) -> None:
        """Return once the first look was made and nothing under this name is being unregistered.

        Until the first look nothing is known of the memory that is taken.
        """
        await self._looked.wait()
        if (purge := self._purges.get(name)) is not None:
            await purge.wait()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._soon.clear()
            try:
                await self._look()
            except MarwayError as exc:
                logger.warning("cannot see what the model server has: %s", exc.message)
            except Exception:
                logger.exception("looking at the model server failed")
            finally:
                # Also without an answer: loads must not wait for a server that does not give one.
                self._looked.set()
                self._context.memory.measured()
            await asyncio.sleep(_SPACING_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._soon.wait()

    async def _look(self) -> None:
        began = time.monotonic()
        status = await self._context.server.status()
        self._context.memory.server_takes(status.base_bytes)
        self._context.memory.devices.measured(status.devices)
        self._count(status)
        self._context.metrics.count_deaths(status.deaths, self._title)
        workers: dict[str, list[WorkerStatus]] = defaultdict(list)
        for worker in status.workers:
            if worker.server_name is not None:
                workers[worker.server_name].append(worker)
        changed = False
        for name, actor in list(self._actors.items()):
            entry = actor.entry
            # What was seen may be older than what it does; who waits for memory does nothing yet.
            busy = actor.busy and not self._context.memory.waits(entry.key)
            if busy or entry.state != "ready" or entry.settled_at >= began:
                continue
            if name not in status.server_names:
                logger.warning("the model server lost %s", entry.title)
                actor.lose()
                continue
            changed |= self._measure(actor, workers[name], status.weights.get(name, 0))
        if changed:
            self._context.changes.bump()
        await self._purge(status.server_names)

    def _measure(self, actor: Actor, workers: list[WorkerStatus], weights_bytes: int) -> bool:
        entry = actor.entry
        if len(workers) != entry.workers:
            if entry.workers:
                self._short(actor, len(workers))
            return False  # one is being restarted: what it takes is not known now
        self._short_since.pop(entry.key, None)
        if any(worker.private_bytes <= 0 for worker in workers):
            return False  # not measured, which is not nothing: the reservation stands
        self._context.memory.devices.measured_workers(entry.record, workers)
        entry.weights_bytes, entry.copied_bytes = weights_bytes, sum(worker.copied_bytes for worker in workers)
        sizes = [worker.private_bytes for worker in workers]
        return self._context.memory.measured_workers(entry.record, sizes, shared_bytes=weights_bytes)

    def _short(self, actor: Actor, seen: int) -> None:
        """Have workers started again that stay away: the server gives up on a worker that keeps dying, silently."""
        key = actor.entry.key
        now = time.monotonic()
        since = self._short_since.setdefault(key, now)
        if seen < actor.entry.workers and now - since >= max(30.0, self._interval_s):
            logger.warning("%s has %d of %d workers: repairing", actor.entry.title, seen, actor.entry.workers)
            self._short_since.pop(key)
            actor.repair()

    async def _purge(self, names: frozenset[str]) -> None:
        """Unregister what nobody here knows."""
        for name in sorted(names):
            actor = self._actors.get(name)
            if actor is not None and (actor.busy or actor.entry.served is not None or actor.entry.restores):
                continue
            self._purges[name] = asyncio.Event()
            try:
                stranger = ServedModel(name, name, "", Path(), 1, self._interval_s, self._interval_s)
                found = await self._context.server.describe(stranger)
                if found is not None:
                    logger.warning("unregistering %s, which another sidecar left", name)
                    await self._context.server.unload(replace(stranger, version=found.version))
            finally:
                self._purges.pop(name).set()

    def _title(self, name: str) -> tuple[str, str]:
        actor = self._actors.get(name)
        return (actor.entry.record.name, actor.entry.record.version) if actor is not None else ("", "")

    def _count(self, status: ServerStatus) -> None:
        """Show workers as they are, by version and by how they were started."""
        by_mode = Counter((worker.mode, worker.reason) for worker in status.workers)
        by_version: Counter[tuple[str, ...]] = Counter()
        for worker in status.workers:
            if (actor := self._actors.get(worker.server_name or "")) is not None:
                record = actor.entry.record
                by_version[record.name, record.version, worker.mode] += 1
        metrics = self._context.metrics
        for gauge, counts in ((metrics.runtime_workers, by_mode), (metrics.workers, by_version)):
            gauge.clear()
            for labels, count in counts.items():
                gauge.labels(*labels).set(count)
