"""The parts of one sidecar, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from marway.archive_store import ArchiveStore, FetchOutcome
from marway.errors import Draining, MarwayError, RuntimeDown
from marway.process.allocator import give_back_freed_memory
from marway.refs import new_ulid
from marway.registry import open_registry
from marway.resolve import RegistryReader, Resolver
from marway.wire.pods import PodEvent, PodStatus
from marway_http.loop_watch import watch_loop
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.backends.model_directory import hold_directory
from marway_sidecar.backends.watch import ServerWatch
from marway_sidecar.changes import Changes, events
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.comparison import Comparer
from marway_sidecar.lifecycle.control import Control, DeletedVersions
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.lifecycle.golden_check import GoldenChecks
from marway_sidecar.memory.body_budget import BodyBudget
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads
from marway_sidecar.traces.opening import opened

__all__ = ["Sidecar"]

_PARSING_THREADS: Final = 2
"""What a body costs to read is Python's own work, of which only one thread does some at a time: more would only make
the event loop wait longer for its turn."""


class Sidecar:
    """The parts of one sidecar, put together; opened and closed by the application's lifespan."""

    def __init__(self, settings: SidecarSettings) -> None:
        self.settings = settings
        self.metrics = SidecarMetrics()
        self.threads = Threads(settings.archive_threads)
        self.parsing = Threads(_PARSING_THREADS)
        registry = open_registry(settings.registry)
        self.reader = RegistryReader(registry, threads=settings.registry_threads)
        self.resolver = Resolver(
            self.reader,
            state_ttl_s=settings.state_ttl_s,
            state_max_stale_s=None,
            negative_ttl_s=settings.negative_ttl_s,
            wait_s=settings.registry_timeout_s,
        )
        self.changes = Changes()
        self.draining = Drain(lame_duck_s=settings.lame_duck_s, changed=self.changes.bump)
        self.archives = ArchiveStore(
            settings.archive_store,
            registry,
            observe=self._observe_fetch,
            limit_bytes=settings.archive_store_bytes,
            free_bytes=settings.archive_store_free_bytes,
            quarantine_bytes=settings.archive_quarantine_bytes,
            stuck_after_s=settings.archive_stuck_s,
            streams=settings.archive_streams,
        )
        checks = GoldenChecks(registry, self.archives, self.threads, self.metrics, settings)
        backend = open_backend(settings)
        traced = opened(settings, by_runtime=backend.by_runtime)
        self.pool = ModelPool(
            self.archives,
            self.threads,
            self.metrics,
            settings=settings,
            changes=self.changes,
            warm=checks.warm,
            load_ended=traced.load_ended,
        )
        if backend.directory is not None:
            hold_directory(backend.directory)
        self.metrics.of_backend(backend.name)
        self.attach = traced.attach(self.pool.attach)
        self.runtime = ServerWatch(backend, self.attach, poll_s=settings.runtime_poll_s)
        self.deleted = DeletedVersions(self.pool, self.resolver, interval_s=settings.tombstone_check_s)
        self.bodies = BodyBudget(
            settings.body_memory_bytes, largest_bytes=settings.max_body_bytes, emptied=give_back_freed_memory
        )
        self.metrics.bodies.set_function(lambda: float(self.bodies.held_bytes))
        self.predictor = traced.predictor(
            settings, self.resolver, self.pool, self.bodies, self.draining, self.parsing, refused=self.deleted.refused
        )
        comparer = Comparer(self.pool, checks, self.threads)
        self.control = Control(self.resolver, self.pool, checks, comparer, self.draining, self.runtime)
        self.metrics.ready.set_function(lambda: float(self.trouble() is None))
        self.metrics.runtime_up.set_function(lambda: float(self.pool.server is not None))
        self.metrics.draining.set_function(lambda: float(self.draining.draining))
        self.metrics.registry_stale.set_function(self.reader.stale_s)
        self._close_traces = traced.close
        self._boot_id = new_ulid()
        self._stopped = False

    def stop(self, *, at_once: bool = False) -> None:
        """Drain for good: load nothing more, and soon, or ``at_once``, take no more requests."""
        self.draining.stop(at_once=at_once)
        self.pool.refuse_loads()

    async def drained(self, *, limit_s: float) -> bool:
        """Wait until no request is left, end every watch, and return whether all requests ended within ``limit_s``."""
        done = await self.draining.emptied(limit_s=limit_s)
        if not done:
            self.predictor.give_up()
        self._stopped = True
        self.changes.bump()
        return done

    def events(self) -> AsyncIterator[PodEvent]:
        """Yield this pod's status and then what changes, until the process stops."""
        return events(self.status, self.changes, stopped=lambda: self._stopped)

    def trouble(self) -> MarwayError | None:
        """Return why this pod cannot serve, or None when it can."""
        if self.draining.draining:
            return Draining("this pod drains and takes no requests")
        if self.pool.server is None:
            return RuntimeDown(self.runtime.trouble)
        return None

    def status(self) -> PodStatus:
        """Return who this pod is and what it has."""
        backend, info = self.runtime.backend, self.runtime.info
        versions = info.versions if info is not None else {}
        used, budget = self.pool.memory()
        return PodStatus(
            name=self.settings.name,
            boot_id=f"{self._boot_id}-{info.boot_id if info is not None else 'down'}",
            backend=backend.name,
            serves=tuple(sorted(backend.serves)),
            pool=self.settings.pool,
            device=self.settings.device,
            python_version=versions.get("python"),
            torch_version=versions.get("torch"),
            server_version=versions.get(backend.name) or None,
            ready=self.trouble() is None,
            draining=self.draining.draining,
            requests_in_flight=self.draining.requests_in_flight,
            memory_used_bytes=used,
            memory_budget_bytes=budget,
            devices=self.pool.devices(),
            models=self.pool.statuses(),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the runtime and the registry while the context is open, and let go of everything at its end."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, self._close_traces)
            stack.callback(self.threads.close)
            stack.callback(self.parsing.close)
            stack.callback(self.archives.close)
            stack.push_async_callback(self.reader.aclose)
            stack.push_async_callback(self.resolver.aclose)
            stack.push_async_callback(self.pool.aclose)
            tasks = (
                asyncio.create_task(self.runtime.run(), name="watch-runtime"),
                asyncio.create_task(self.deleted.run(), name="unload-deleted"),
                asyncio.create_task(self.threads.run(self.archives.clean), name="clean-archive-store"),
                asyncio.create_task(watch_loop(self.metrics.loop_blocked.observe), name="watch-loop"),
            )
            for task in tasks:
                stack.push_async_callback(_cancelled, task)
            yield

    def _observe_fetch(self, outcome: FetchOutcome, duration_s: float) -> None:
        self.metrics.fetches.labels(outcome).inc()
        self.metrics.fetch_duration.observe(duration_s)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
