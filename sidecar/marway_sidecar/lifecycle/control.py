"""Loading, proving, unloading, describing single versions: as the pod contract offers it, and once one is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from marway.deadline import Deadline
from marway.errors import Draining, MarwayError, ModelLoading, NotFound, Unavailable
from marway.records import VersionRecord
from marway.resolve import Resolved, Resolver
from marway.wire.comparison import Comparison
from marway.wire.envelope import Answer, Row
from marway.wire.pods import LoadReport, ModelStatus
from marway_sidecar.backends.watch import ServerWatch
from marway_sidecar.errors import about
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.comparison import Comparer
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.lifecycle.golden_check import GoldenChecks, Proved, ask_version

__all__ = ["Control", "DeletedVersions"]

logger = logging.getLogger(__name__)

_EXPECTED_LOAD_S = 5.0
_DRAIN_S: Final = 60.0
_NOTHING_PROVED = Proved(None, 0, ())


@dataclass(frozen=True, slots=True)
class Control:
    """Does what is asked about one version."""

    resolver: Resolver
    pool: ModelPool
    checks: GoldenChecks
    comparer: Comparer
    drain: Drain
    runtime: ServerWatch

    async def status(self, model: str, selector: str) -> ModelStatus:
        """Return what a version is here; one that was never wanted is `absent`.

        Raises:
            NotFound, InvalidReference, RegistryUnavailable: As `Resolver.resolve`.
        """
        return self._status(await self.resolver.resolve(model, selector))

    async def ready(self, model: str, selector: str) -> ModelStatus:
        """Return a version's status if the next request for it would find it loaded.

        Raises:
            Unavailable: It would not; the message says what it is instead, and `retry_after_s` when to look again.
        """
        status = await self.status(model, selector)
        if self.drain.draining:
            raise about(status, Draining("this pod drains and takes no requests"))
        if status.state == "ready":
            return status
        what = f"{status.name} {status.version}"
        if status.state in ("fetching", "loading"):
            retry_after_s = status.load_duration_s or _EXPECTED_LOAD_S
            raise about(status, ModelLoading(f"{what} is being loaded", retry_after_s=retry_after_s))
        trouble = {"failed": f"failed to load: {status.failure}", "draining": "is being unloaded"}
        message = f"{what} {trouble.get(status.state, 'is not loaded here')}"
        raise about(status, Unavailable(message, retry_after_s=status.retry_after_s))

    async def load(self, model: str, selector: str, *, prove: bool, timeout_s: float | None) -> LoadReport:
        """Have a version loaded, and its golden answers compared if that is asked for.

        It may take ``timeout_s``, or without that what the version says its load may take.

        Raises:
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            Unavailable: Not here, or not now.
            DeadlineExceeded: It took too long; a load goes on.
        """
        started = time.monotonic()
        resolved, deadline = await self._wanted(model, selector, timeout_s)

        def ask(row: Row) -> Awaitable[Answer]:
            return ask_version(self.pool, resolved, row, deadline)

        try:
            await self.pool.load(resolved.record, resolved.serving, deadline)
            proved = await self.checks.prove(ask, resolved.record) if prove else _NOTHING_PROVED
        except MarwayError as exc:
            _log("load failed", resolved.record, started, prove=prove, error=exc.code)
            raise
        _log("loaded", resolved.record, started, prove=prove, differences=len(proved.differences))
        info = self.runtime.info
        return LoadReport(
            model=self._status(resolved),
            golden_sha256=proved.golden_sha256,
            examples=proved.examples,
            differences=proved.differences,
            duration_s=time.monotonic() - started,
            server=self.runtime.backend.name,
            server_versions=info.versions if info is not None else {},
        )

    async def compare(self, model: str, selector: str, *, base: str | None, timeout_s: float | None) -> Comparison:
        """Have a version loaded, and its answers compared with those of another one, to the other's golden inputs.

        Without a ``base``, a version or a label, only its own answers are looked at. It may take as long as `load`, and
        raises as that does.
        """
        started = time.monotonic()
        resolved, deadline = await self._wanted(model, selector, timeout_s)
        other = await self.resolver.resolve(model, base) if base is not None else None
        try:
            found = await self.comparer.compare(resolved, other, deadline)
        except MarwayError as exc:
            _log("comparison failed", resolved.record, started, base=base, error=exc.code)
            raise
        outcome = {"base": found.base, "inputs": found.inputs, "equal": found.equal, "refused": list(found.refused)}
        _log("compared", resolved.record, started, **outcome)
        return found

    async def unload(self, model: str, selector: str, *, timeout_s: float) -> ModelStatus:
        """Drain and unload a version, and return what it then is.

        Raises:
            Unavailable: It could not be drained in time.
        """
        started = time.monotonic()
        resolved = await self.resolver.resolve(model, selector)
        status = await self.pool.unload(resolved.record.id, Deadline.after(timeout_s))
        _log("unloaded", resolved.record, started)
        return status

    async def _wanted(self, model: str, selector: str, timeout_s: float | None) -> tuple[Resolved, Deadline]:
        """Return a version that is to be loaded, and until when."""
        started = time.monotonic()
        if self.drain.draining:
            raise Draining("this pod drains and loads nothing")
        resolved = await self.resolver.resolve(model, selector)
        return resolved, Deadline(started + (resolved.serving.load_timeout_s if timeout_s is None else timeout_s))

    def _status(self, resolved: Resolved) -> ModelStatus:
        record = resolved.record
        found = self.pool.status_of(record.id)
        if found is not None:
            return found
        return ModelStatus(id=record.id, name=record.name, version=record.version, state="absent")


def _log(event: str, version: VersionRecord | ModelStatus, started: float, **more: object) -> None:
    duration_s = round(time.monotonic() - started, 3)
    fields = {"model": version.name, "version": version.version, "duration_s": duration_s, **more}
    logger.info(event, extra={"fields": fields})


class DeletedVersions:
    """Unloads versions that are held here and were deleted from the registry.

    Requests for a deleted version are refused by the resolver, within the 2 s that a state may be old. This gives back
    what such a version holds here: at once when somebody asked for it, else when its turn to be checked comes.

    Args:
        interval_s: How often each version is looked up, in seconds. The look-ups are spread over that time, so that a
            pod with hundreds of versions asks the registry steadily and little.
    """

    def __init__(self, pool: ModelPool, resolver: Resolver, *, interval_s: float) -> None:
        self._pool = pool
        self._resolver = resolver
        self._interval_s = interval_s
        self._refused: set[str] = set()
        self._wake = asyncio.Event()

    def refused(self, model: str) -> None:
        """Look at this model soon: somebody asked for a version that is not there (any more)."""
        self._refused.add(model)
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        last = ("", "")
        while True:
            until = time.monotonic() + self._interval_s / max(1, len(self._held()))
            while (left_s := until - time.monotonic()) > 0:
                await self._check_refused(left_s)
            held = self._held()
            due = next((each for each in held if (each.name, each.version) > last), held[0] if held else None)
            if due is not None:
                last = (due.name, due.version)
                await self._check(due)

    async def _check_refused(self, timeout_s: float) -> None:
        """Wait for refused requests, and look at what is held of their models."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        self._wake.clear()
        models, self._refused = self._refused, set()
        for status in self._held():
            if status.name in models:
                await self._check(status)

    def _held(self) -> list[ModelStatus]:
        held = (status for status in self._pool.statuses() if status.state not in ("absent", "draining"))
        return sorted(held, key=lambda status: (status.name, status.version))

    async def _check(self, status: ModelStatus) -> None:
        """Unload a version if it was deleted; while the registry is away, what is loaded goes on serving."""
        try:
            await self._resolver.resolve(status.name, status.version)
            return
        except NotFound:
            started = time.monotonic()
        except MarwayError:
            return
        try:
            await self._pool.unload(status.id, Deadline.after(_DRAIN_S))
        except MarwayError as exc:
            logger.warning("%s %s was deleted and cannot be unloaded yet: %s", status.name, status.version, exc.message)
            return
        _log("unloaded a deleted version", status, started)
