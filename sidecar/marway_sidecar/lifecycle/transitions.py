"""What a version's actor does: load, scale, unload. Each step leaves state, memory and model server in agreement."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, Literal, TypeVar

from marway.deadline import Deadline
from marway.environments.lock import EnvironmentLock
from marway.errors import LoadFailed, MarwayError, RuntimeDown, Unavailable
from marway.records import VersionRecord
from marway.refs import server_name
from marway.telemetry import about_requests
from marway.wire.pods import State, UnloadReason
from marway_sidecar.archives import Fetches
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.backends.runtime import ENVIRONMENT_TIMEOUT_S
from marway_sidecar.errors import about
from marway_sidecar.lifecycle.entry import Context, Entry, Failure
from marway_sidecar.lifecycle.scaling import bounds
from marway_sidecar.memory.eviction import Evict

__all__ = ["LoadListener", "Transitions", "Warm"]

logger = logging.getLogger(__name__)

_GRACE_S: Final = 35.0  # the adapter says itself that a worker did not come up in time, and cleans up; this is above it

_ENVIRONMENT_S: Final = (
    ENVIRONMENT_TIMEOUT_S  # the runtime says itself, and sooner, that one could not be built in time
)

Warm = Callable[[ModelServer, ServedModel, VersionRecord, Deadline], Awaitable[None]]
"""Called after a load and before anybody else is let in; raises `LoadFailed` to refuse the version."""

LoadListener = Callable[[Entry, Mapping[str, float], str, BaseException | None], None]
"""Called when a load is over, as `LoadTraces.ended`."""

T = TypeVar("T")
_NAMED_MAX: Final = 100  # requests in a line about a version

Outcome = Literal["ok", "failed", "refused", "timeout", "cut off"]


@dataclass(frozen=True, slots=True)
class Transitions:
    """Does the steps of all versions in one attached model server."""

    context: Context
    fetches: Fetches
    reconciled: Callable[[str], Awaitable[None]]
    """Returns once it was seen what the server has, and nothing under this name is being unregistered."""
    warm: Warm | None
    load_ended: LoadListener | None

    async def load(self, entry: Entry, *, spare: bool) -> None:
        """Fetch, register, start workers, warm up a version that is absent or failed; ``spare``, evict nobody for it.

        Raises:
            LoadFailed: It cannot be loaded; remembered, and nothing of it is left.
            Unavailable: Something else is in the way; not remembered.
        """
        entry.load_began = time.monotonic()
        outcome: Outcome = "failed"
        ends = {"began": entry.load_began}  # when each phase ended
        try:
            self._show(entry, "fetching")
            await self.reconciled(server_name(entry.key))
            ends["look"] = time.monotonic()
            lock = _environment(self.context.server, entry.record)
            entry.archive = await self._fetched(entry, self.fetches.hold(entry.record))
            wheels = await self._fetched(entry, self.fetches.hold_wheels(lock)) if lock is not None else ()
            ends["fetch"] = time.monotonic()
            self._show(entry, "loading")
            outcome = "refused"
            served = self._served(entry, entry.archive.path, lock)
            await self.context.memory.reserve(entry.record, served.workers, evict="none" if spare else "idle")
            ends["reserve"] = time.monotonic()
            outcome = "failed"
            try:
                served = await self._registered(entry, served, ends)
            finally:
                for wheel in wheels:  # installed, or of no use
                    wheel.close()
            entry.served, entry.failure, entry.unloaded, entry.restores = served, None, None, 0
            entry.load_duration_s = time.monotonic() - entry.load_began
            entry.used_at = time.monotonic()
            entry.usage.restart()
            self.context.memory.settle(entry.key)
            self.context.estimates.measured_load(entry.key, entry.load_duration_s)
            self.context.metrics.load_duration.observe(entry.load_duration_s)
            outcome = "ok"
            self._show(entry, "ready")
            took = {phase: end - began for (phase, end), began in zip([*ends.items()][1:], ends.values(), strict=False)}
            for phase, seconds in took.items():
                self.context.metrics.load_phase_duration.labels(phase).observe(seconds)
            fields = {**_about(entry), "phases_ms": {phase: round(end * 1000, 1) for phase, end in took.items()}}
            logger.info("%s is ready after %.2f s", entry.title, entry.load_duration_s, extra={"fields": fields})
        except TimeoutError as exc:
            outcome = "timeout"
            limit_s = entry.serving.load_timeout_s
            error = LoadFailed(f"{entry.title} was not loaded within {limit_s:g} s (`load_timeout_s`)")
            self._failed(entry, error)
            raise error from exc
        except MarwayError as exc:
            self._failed(entry, exc)
            raise
        except BaseException:
            outcome = "cut off"  # by the end of the instance: nothing is known of the version
            entry.let_go()
            self.context.memory.release(entry.key)
            self._show(entry, "absent", workers=0)
            raise
        finally:
            entry.load_began = None
            entry.settled_at = time.monotonic()
            if self.load_ended is not None:
                self.load_ended(entry, ends, outcome, None if outcome == "ok" else sys.exc_info()[1])
            if outcome != "cut off":
                self.context.metrics.loads.labels(entry.record.name, entry.record.version, outcome).inc()

    async def scale(self, entry: Entry, workers: int) -> None:
        """Set the number of workers of a version that is ready.

        Fewer only with no call in flight: the server takes a worker away with the call that it runs, and which worker
        runs what it does not say.

        Raises:
            MarwayError: It was not possible; the version has the workers that it had.
        """
        assert entry.served is not None
        before = entry.workers
        if workers > before:
            # Refused, it is as it was: `settled_at` stays, so that what it takes is measured however often it asks.
            evict: Evict = "idle" if before == 0 or workers <= entry.fewest else "unused"
            await self.context.memory.reserve(entry.record, workers, evict=evict)
        try:
            if workers < before:
                entry.scheduler.close()
                await entry.scheduler.drained()
            entry.load_began = time.monotonic() if before == 0 else None
            try:
                await self.context.server.scale(entry.served, workers)
            except RuntimeDown:
                raise
            except MarwayError:
                # Workers that cannot start are tried again and again, and count: back to the number that was.
                with contextlib.suppress(MarwayError):
                    await self.context.server.scale(entry.served, before)
                self.context.memory.estimate(entry.record, before)
                raise
            if workers < before:
                self.context.memory.estimate(entry.record, workers)
            else:
                self.context.memory.settle(entry.key)
            entry.served = replace(entry.served, workers=max(1, workers))
            entry.usage.restart()
            logger.info("%s has %d workers, had %d", entry.title, workers, before, extra={"fields": _about(entry)})
            self._show(entry, entry.state, workers=workers)
        finally:
            entry.load_began = None
            entry.settled_at = time.monotonic()
            self.context.memory.shrunk(entry.key)

    async def unload(self, entry: Entry, reason: UnloadReason) -> None:
        """Let nobody in, wait until no call is in flight, unload; what is not loaded is left as it is.

        Raises:
            MarwayError: The server would not; the version goes on being served.
        """
        if entry.state != "ready" or entry.served is None:
            self.context.memory.keep(entry.key)
            return
        entry.scheduler.close()
        self._show(entry, "draining")
        await entry.scheduler.drained()
        try:
            await self.context.server.unload(entry.served)
        except MarwayError:
            entry.used_at = time.monotonic()  # not the first choice again
            self.context.memory.keep(entry.key)
            self._show(entry, "ready")
            raise
        entry.unloaded = reason, time.time()
        self.forget(entry)
        if reason != "asked":
            self.context.metrics.evictions.labels(reason).inc()
        logger.info("%s is unloaded (%s)", entry.title, reason, extra={"fields": _about(entry)})

    def forget(self, entry: Entry) -> None:
        """Count a version as absent: it was unloaded, or the server lost it."""
        entry.scheduler.close()
        entry.let_go()
        entry.settled_at = time.monotonic()
        self._show(entry, "absent", workers=0)
        self.context.memory.release(entry.key)

    async def _fetched(self, entry: Entry, fetch: Awaitable[T]) -> T:
        limit_s = self.context.settings.fetch_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await fetch
        except TimeoutError as exc:
            message = f"the archive of {entry.title} was not fetched within {limit_s:g} s; the fetch goes on"
            raise Unavailable(message, retry_after_s=self.context.estimates.load_s(entry.key)) from exc

    async def _registered(self, entry: Entry, served: ServedModel, ends: dict[str, float]) -> ServedModel:
        """Have the server load it, warm it up, and return how it is called; on failure nothing of it is left there."""
        # The runtime says itself, and sooner, that an environment could not be built in time.
        build_s = ENVIRONMENT_TIMEOUT_S if served.environment is not None else 0.0
        deadline = Deadline.after(entry.serving.load_timeout_s + _GRACE_S + build_s)
        try:
            async with asyncio.timeout(deadline.left_s()):
                found = await self.context.server.load(served)
                served = served.as_described(found)
                ends["register"] = time.monotonic()
                if self.warm is not None:
                    await self.warm(self.context.server, served, entry.record, deadline)
                    ends["warm"] = time.monotonic()
        except (TimeoutError, MarwayError):
            with contextlib.suppress(MarwayError):
                await self.context.server.unload(served)
            raise
        entry.workers = max(1, found.workers)
        if entry.workers != served.workers:
            self.context.memory.estimate(entry.record, entry.workers)
        return served

    def _served(self, entry: Entry, path: Path, environment: EnvironmentLock | None) -> ServedModel:
        record, serving = entry.record, entry.serving
        return ServedModel(
            server_name=server_name(record.id),
            name=record.name,
            version=record.version,
            archive=path,
            workers=1 if record.sequences is not None else max(1, serving.min_workers),
            max_workers=1 if record.sequences is not None else bounds(serving, cpus=self.context.cpus)[1],
            load_timeout_s=serving.load_timeout_s,
            predict_timeout_s=serving.predict_timeout_s,
            protocol=serving.protocol,
            streaming=serving.streaming,
            batch_rows=serving.max_batch_rows,
            retry_rows=serving.retry_rows,
            golden=record.golden_sha256 is not None,
            sequences=record.sequences is not None,
            environment=environment,
        )

    def _failed(self, entry: Entry, error: MarwayError) -> None:
        entry.let_go()
        self.context.memory.release(entry.key)
        about(entry.record, error)
        if not isinstance(error, RuntimeDown):
            entry.restores = 0
        if not isinstance(error, Unavailable):  # a store that is away or a full pod says nothing about the version
            entry.failure = Failure.after(entry.failure, error, backoff_s=self.context.settings.load_failure_backoff_s)
            self._show(entry, "failed", workers=0)
            logger.error("%s", error.message, extra={"fields": {**_about(entry), "error": error.code}})
        else:
            self._show(entry, "absent", workers=0)

    def _show(self, entry: Entry, state: State, *, workers: int | None = None) -> None:
        entry.state = state
        if workers is not None:
            entry.workers = workers
        self.context.changes.bump()


def _about(entry: Entry) -> dict[str, object]:
    """Return what a line about a version names: it, and the requests that wait for it."""
    waiting = [job.rows[0].request_id for job in islice(entry.scheduler.jobs, _NAMED_MAX) if not job.started]
    return {"model": entry.record.name, "version": entry.record.version, **about_requests(tuple(waiting))}


def _environment(server: ModelServer, record: VersionRecord) -> EnvironmentLock | None:
    """Return what a version requires of this server: nothing where it was not locked, or the server installs nothing.

    Raises:
        Unavailable: It is locked for other pods.
    """
    target = server.info.environments_for if record.environments else None
    if target is None:
        return None
    found = next((lock for lock in record.environments if str(lock.target) == target), None)
    if found is None:
        known = ", ".join(str(lock.target) for lock in record.environments)
        message = (
            f"what {record.name} {record.version} requires is locked for {known}, and this pod is {target}: publish it "
            f"as a new version with --lock-for {target}"
        )
        raise about(record, Unavailable(message))
    return found
