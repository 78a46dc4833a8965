"""Loading, proving, unloading and describing single versions, as the pod contract offers it."""

from __future__ import annotations

import logging
import time

from marway.deadline import Deadline
from marway.errors import Draining, MarwayError, ModelLoading, Unavailable
from marway.resolve import Resolved, Resolver
from marway.wire.comparison import Comparison
from marway.wire.envelope import Answer, Row
from marway.wire.pods import LoadReport, ModelStatus
from marway_sidecar.backends.watch import ServerWatch
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.comparison import Comparer
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.lifecycle.golden_check import GoldenChecks, Proved, ask_model

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
            raise Draining("this pod drains and takes no requests", model=status.name, version=status.version)
        if status.state == "ready":
            return status
        what = f"{status.name} {status.version}"
        if status.state in ("fetching", "loading"):
            raise ModelLoading(
                f"{what} is being loaded",
                model=status.name,
                version=status.version,
                retry_after_s=status.load_duration_s or _EXPECTED_LOAD_S,
            )
        said = {"failed": f"failed to load: {status.failure}", "draining": "is being unloaded"}
        raise Unavailable(
            f"{what} {said.get(status.state, 'is not loaded here')}",
            model=status.name,
            version=status.version,
            retry_after_s=status.retry_after_s,
        )

    async def load(self, model: str, selector: str, *, prove: bool, timeout_s: float | None) -> LoadReport:
        """Have a version loaded, and its golden answers compared if that is asked for.

        Args:
            model: A model's name.
            selector: A version or a label.
            prove: Whether to compare them.
            timeout_s: How long it may take; None allows what the version says its load may take.

        Raises:
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            Unavailable: Not here, or not now.
            DeadlineExceeded: It took too long; a load goes on.
        """
        started = time.monotonic()
        if self._drain.draining:
            raise Draining("this pod drains and loads nothing")
        resolved = await self._resolver.resolve(model, selector)
        record, serving = resolved.record, resolved.serving
        deadline = Deadline(started + (timeout_s if timeout_s is not None else serving.load_timeout_s))
        try:
            await self._pool.load(record, serving, deadline)
            proved = await self._prove(resolved, deadline) if prove else _NOTHING_PROVED
        except MarwayError as exc:
            self._say("load failed", resolved, started, prove=prove, error=exc.code)
            raise
        self._say("loaded", resolved, started, prove=prove, differences=len(proved.differences))
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

        Args:
            model: A model's name.
            selector: A version or a label.
            base: The other one, a version or a label; None has only the version's own answers looked at.
            timeout_s: How long it may take; None allows what the version says its load may take.

        Raises:
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            Unavailable: Not here, or not now.
            DeadlineExceeded: It took too long.
        """
        started = time.monotonic()
        if self._drain.draining:
            raise Draining("this pod drains and loads nothing")
        resolved = await self._resolver.resolve(model, selector)
        other = await self._resolver.resolve(model, base) if base is not None else None
        deadline = Deadline(started + (timeout_s if timeout_s is not None else resolved.serving.load_timeout_s))
        try:
            found = await self._comparer.compare(resolved, other, deadline)
        except MarwayError as exc:
            self._say("comparison failed", resolved, started, base=base, error=exc.code)
            raise
        said = {"base": found.base, "inputs": found.inputs, "equal": found.equal, "refused": list(found.refused)}
        self._say("compared", resolved, started, **said)
        return found

    async def unload(self, model: str, selector: str, *, timeout_s: float) -> ModelStatus:
        """Drain and unload a version, and return what it then is.

        Raises:
            Unavailable: It could not be drained in time.
        """
        started = time.monotonic()
        resolved = await self._resolver.resolve(model, selector)
        status = await self._pool.unload(resolved.record.id, Deadline.after(timeout_s))
        self._say("unloaded", resolved, started)
        return status

    async def _prove(self, resolved: Resolved, deadline: Deadline) -> Proved:
        record = resolved.record

        async def ask(row: Row) -> Answer:
            # A lease each: other requests for the version take their turns in between.
            async with self._pool.lease(record, resolved.serving, deadline) as lease:
                return await ask_model(lease.server, lease.model, row, deadline=deadline)

        async with self._pool.lease(record, resolved.serving, deadline) as lease:
            archive = lease.model.archive
        return await self._checks.prove(ask, archive, record)

    def _status(self, resolved: Resolved) -> ModelStatus:
        record = resolved.record
        found = self._pool.status_of(record.id)
        if found is not None:
            return found
        return ModelStatus(id=record.id, name=record.name, version=record.version, state="absent")

    def _say(self, event: str, resolved: Resolved, started: float, **more: object) -> None:
        record = resolved.record
        fields: dict[str, object] = {
            "model": record.name,
            "version": record.version,
            "duration_s": round(time.monotonic() - started, 3),
            **more,
        }
        logger.info(event, extra={"fields": fields})
