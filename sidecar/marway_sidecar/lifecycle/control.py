"""Loading, proving, unloading and describing single versions, as the pod contract offers it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable

from marway.deadline import Deadline
from marway.errors import Draining, MarwayError, ModelLoading, Unavailable
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

__all__ = ["Control"]

logger = logging.getLogger(__name__)

_EXPECTED_LOAD_S = 5.0
_NOTHING_PROVED = Proved(None, 0, ())


class Control:
    """Does what is asked about one version.

    Args:
        resolver: Finds the version.
        pool: Has it.
        checks: Proves it.
        comparer: Compares it with another.
        drain: Says whether the pod still takes work.
        runtime: Says which model server is up.
    """

    def __init__(
        self,
        resolver: Resolver,
        pool: ModelPool,
        checks: GoldenChecks,
        comparer: Comparer,
        drain: Drain,
        runtime: ServerWatch,
    ) -> None:
        self._resolver = resolver
        self._pool = pool
        self._checks = checks
        self._comparer = comparer
        self._drain = drain
        self._runtime = runtime

    async def status(self, model: str, selector: str) -> ModelStatus:
        """Return what a version is here; one that was never wanted is `absent`.

        Raises:
            NotFound, InvalidReference, RegistryUnavailable: As `Resolver.resolve`.
        """
        return self._status(await self._resolver.resolve(model, selector))

    async def ready(self, model: str, selector: str) -> ModelStatus:
        """Return a version's status if the next request for it would find it loaded.

        Raises:
            Unavailable: It would not; the message says what it is instead, and `retry_after_s` when to look again.
        """
        status = await self.status(model, selector)
        if self._drain.draining:
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
            return ask_version(self._pool, resolved, row, deadline)

        try:
            await self._pool.load(resolved.record, resolved.serving, deadline)
            proved = await self._checks.prove(ask, resolved.record) if prove else _NOTHING_PROVED
        except MarwayError as exc:
            self._log("load failed", resolved, started, prove=prove, error=exc.code)
            raise
        self._log("loaded", resolved, started, prove=prove, differences=len(proved.differences))
        info = self._runtime.info
        return LoadReport(
            model=self._status(resolved),
            golden_sha256=proved.golden_sha256,
            examples=proved.examples,
            differences=proved.differences,
            duration_s=time.monotonic() - started,
            server=self._runtime.backend.name,
            server_versions=info.versions if info is not None else {},
        )

    async def compare(self, model: str, selector: str, *, base: str | None, timeout_s: float | None) -> Comparison:
        """Have a version loaded, and its answers compared with those of another one, to the other's golden inputs.

        Without a ``base``, a version or a label, only its own answers are looked at. It may take as long as `load`, and
        raises as that does.
        """
        started = time.monotonic()
        resolved, deadline = await self._wanted(model, selector, timeout_s)
        other = await self._resolver.resolve(model, base) if base is not None else None
        try:
            found = await self._comparer.compare(resolved, other, deadline)
        except MarwayError as exc:
            self._log("comparison failed", resolved, started, base=base, error=exc.code)
            raise
        outcome = {"base": found.base, "inputs": found.inputs, "equal": found.equal, "refused": list(found.refused)}
        self._log("compared", resolved, started, **outcome)
        return found

    async def unload(self, model: str, selector: str, *, timeout_s: float) -> ModelStatus:
        """Drain and unload a version, and return what it then is.

        Raises:
            Unavailable: It could not be drained in time.
        """
        started = time.monotonic()
        resolved = await self._resolver.resolve(model, selector)
        status = await self._pool.unload(resolved.record.id, Deadline.after(timeout_s))
        self._log("unloaded", resolved, started)
        return status

    async def _wanted(self, model: str, selector: str, timeout_s: float | None) -> tuple[Resolved, Deadline]:
        """Return a version that is to be loaded, and until when."""
        started = time.monotonic()
        if self._drain.draining:
            raise Draining("this pod drains and loads nothing")
        resolved = await self._resolver.resolve(model, selector)
        return resolved, Deadline(started + (resolved.serving.load_timeout_s if timeout_s is None else timeout_s))

    def _status(self, resolved: Resolved) -> ModelStatus:
        record = resolved.record
        found = self._pool.status_of(record.id)
        if found is not None:
            return found
        return ModelStatus(id=record.id, name=record.name, version=record.version, state="absent")

    def _log(self, event: str, resolved: Resolved, started: float, **more: object) -> None:
        record = resolved.record
        duration_s = round(time.monotonic() - started, 3)
        fields = {"model": record.name, "version": record.version, "duration_s": duration_s, **more}
        logger.info(event, extra={"fields": fields})
