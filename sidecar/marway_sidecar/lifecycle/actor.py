"""The one task of a version that does all its transitions, one after the other.

Others only say what they want (`want_load`, `want_unload`, `want_workers`) or what they saw (`lose`); the actor does
it in its turn, so a load, a scaling and an unload of one version never overlap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from marway.errors import MarwayError, Unavailable
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.pods import ModelStatus, UnloadReason
from marway_sidecar.errors import without_traceback
from marway_sidecar.lifecycle.entry import Entry, refused
from marway_sidecar.lifecycle.transitions import Transitions

__all__ = ["Actor"]

logger = logging.getLogger(__name__)


class _Futures(list[asyncio.Future[ModelStatus]]):
    """Those who wait for a version to be loaded, or to be unloaded."""

    def add(self) -> asyncio.Future[ModelStatus]:
        """Return the future of one more."""
        future: asyncio.Future[ModelStatus] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.append(future)
        return future

    def tell(self, outcome: ModelStatus | MarwayError) -> None:
        """Tell all that wait, and forget them."""
        for future in self:
            if future.done():
                continue
            if isinstance(outcome, MarwayError):
                future.set_exception(without_traceback(outcome))
            else:
                future.set_result(outcome)
        self.clear()


class Actor:
    """Drives one version from state to state; ``queue_grew`` is told that somebody waits for it."""

    def __init__(
        self,
        record: VersionRecord,
        serving: ServingSettings,
        transitions: Transitions,
        *,
        queue_grew: Callable[[], None],
    ) -> None:
        self._transitions = transitions
        self._context = transitions.context
        self.entry = Entry(
            record, serving, self._context, want_load=self.want_load, lose=self.lose, queue_grew=queue_grew
        )
        self._wake = asyncio.Event()
        self._wanted = False
        self._spare = False
        self._lost = False
        self._repair = False
        self._target: int | None = None
        self._leaving: UnloadReason | None = None
        self._loads = _Futures()
        self._unloads = _Futures()
        self.busy = False
        """Whether it is in the middle of a step, or has one before it."""
        self._task = asyncio.create_task(self._run(), name=f"pool {self.entry.title}")

    @property
    def ended(self) -> bool:
        """Whether its task has ended."""
        return self._task.done()

    def want_load(self, *, spare: bool = False) -> None:
        """Have it loaded, with a worker up; ``spare``, only into memory that is free: nobody waits for it yet."""
        self._wanted = True
        self._spare = spare
        self._poke()

    def loaded(self) -> asyncio.Future[ModelStatus]:
        """Return what gives its status once it is loaded with a worker up, or why it is not."""
        self.want_load()
        return self._loads.add()

    def want_unload(self, reason: UnloadReason) -> None:
        """Have it drained and unloaded. From this moment no call is let in."""
        if self._leaving is None:
            self._leaving = reason
        self.entry.scheduler.close()
        self.entry.restores = 0
        self._wanted = False
        self._poke()

    def unloaded(self) -> asyncio.Future[ModelStatus]:
        """Return what gives its status once it was drained and unloaded."""
        self.want_unload("asked")
        return self._unloads.add()

    def want_workers(self, workers: int) -> None:
        """Have another number of workers; one that is not to be had now is dropped."""
        self._target = workers
        self._poke()

    def repair(self) -> None:
        """Have its workers started anew: to none, then to as many as there should be."""
        self._repair = True
        self._poke()

    def lose(self) -> None:
        """Say that the model server does not have it any more."""
        if self.entry.served is not None and not self._lost:
            self._lost = True
            self.entry.scheduler.close()
            self._poke()

    def stop(self, error: MarwayError) -> None:
        """End for good, in whatever step it is, and tell who waits."""
        self._task.cancel()
        self._tell_waiting(error)
        self._unloads.tell(error)

    async def stopped(self) -> None:
        """Return once its task has ended."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def _awaited(self) -> bool:
        return bool(self._loads or self.entry.scheduler.queued)

    def _poke(self) -> None:
        self.busy = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while (step := self._next()) is not None:
                    self.busy = True
                    try:
                        await step()
                    finally:
                        self._open()
            except MarwayError as exc:
                if self.entry.state != "failed":  # which was logged when it failed
                    logger.warning("%s: %s", self.entry.title, exc.message)
                self._tell_waiting(exc)
            except Exception:
                # A version must not lose its only task to a mistake of ours.
                logger.exception("%s: a step failed unexpectedly", self.entry.title)
                self._tell_waiting(MarwayError(f"{self.entry.title}: something went wrong; the sidecar's log has it"))
            finally:
                self.busy = self._wake.is_set()
            if not self.busy:
                self._context.memory.measure()

    def _next(self) -> Callable[[], Awaitable[None]] | None:
        """Return the step that comes next, or None when everything is as wanted."""
        entry = self.entry
        if self._lost:
            return self._forget
        if self._leaving is not None:
            return self._unload
        if self._repair:
            return self._restart_workers
        if entry.answers or not (self._wanted or self._awaited):
            self._wanted = False
            if entry.answers:
                self._loads.tell(self.entry.status())
            return self._scale if self._target is not None else None
        if self._context.refusing:
            self._tell_waiting(refused())
            return None
        if entry.state == "ready":
            self._target = entry.fewest
            return self._scale
        if (error := entry.failed_lately) is not None:
            self._tell_waiting(error)
            return None
        return self._load

    async def _load(self) -> None:
        spare, self._spare = self._spare and not self._awaited, False
        self._target = None
        try:
            await self._transitions.load(self.entry, spare=spare)
        except Unavailable:
            if spare and self._awaited:
                return  # somebody came meanwhile: the next load is theirs, and may take other versions' memory
            raise
        self._wanted = False

    async def _scale(self) -> None:
        target, self._target = self._target, None
        entry = self.entry
        if target is None or entry.state != "ready" or target == entry.workers:
            self._context.memory.shrunk(entry.key)
            return
        try:
            await self._transitions.scale(entry, target)
        except MarwayError as exc:
            if entry.workers == 0:
                raise  # those that wait for the first worker are told
            logger.info("%s stays at %d workers: %s", entry.title, entry.workers, exc.message)

    async def _unload(self) -> None:
        reason, self._leaving = self._leaving, None
        assert reason is not None
        try:
            await self._transitions.unload(self.entry, reason)
        except MarwayError as exc:
            self._unloads.tell(exc)
            raise
        self._unloads.tell(self.entry.status())

    async def _restart_workers(self) -> None:
        self._repair = False
        workers = self.entry.workers
        if self.entry.answers:
            await self._transitions.scale(self.entry, 0)
            await self._transitions.scale(self.entry, workers)

    async def _forget(self) -> None:
        self._lost = False
        self._transitions.forget(self.entry)

    def _open(self) -> None:
        """Let calls in, unless something was wanted meanwhile that needs them out."""
        entry = self.entry
        if entry.state == "ready" and self._leaving is None and not self._lost:
            entry.scheduler.open(entry.workers * entry.calls_per_worker)
            if entry.workers:
                self._loads.tell(self.entry.status())

    def _tell_waiting(self, error: MarwayError) -> None:
        self._wanted = False
        self._loads.tell(error)
        if not self.entry.answers:
            self.entry.scheduler.fail(error)
