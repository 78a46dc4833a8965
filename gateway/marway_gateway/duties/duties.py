"""Runs jobs in the background for as long as this process holds the lease, among all gateways of a registry."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from marway.errors import MarwayError
from marway_gateway.duties.lease import RENEW_S, Lease
from marway_gateway.tasks import TaskSet

__all__ = ["Duties", "DutyMetrics", "Job"]

_JITTER: Final = 0.1
"""Part of an interval by which a job comes earlier or later, so that those of many registries do not meet."""
_RELEASE_S: Final = 2.0
"""How long a gateway that ends waits for a store to take the lease back."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do again and again while the lease is held.

    It may be cancelled at any await, run beside one of the same name elsewhere for a moment (a holder that was stopped
    and goes on), and is run again after a failure: whatever it does must do no harm when it is done twice.

    Attributes:
        name: What it is called in logs and metrics.
        interval_s: Time from its end to its next start, in seconds.
        run: Does it once; it may return after how many seconds it is to be done again, in the interval's place.
        first_s: How long after the lease was taken it is done first, in seconds.
        ended: Called when it is done here no more: another process does it.
    """

    name: str
    interval_s: float
    run: Callable[[], Awaitable[float | None]]
    first_s: float = 0.0
    ended: Callable[[], None] | None = None


class DutyMetrics:
    """What is told of duties, whichever lease they hang on.

    Args:
        registry: Where they are told.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.held = Gauge(
            "marway_gateway_duties_held",
            "Whether this process does the background duties of all gateways.",
            registry=registry,
        )
        self.runs = Counter(
            "marway_gateway_duty_runs_total",
            "Background duties done, by how they ended.",
            ("duty", "outcome"),
            registry=registry,
        )
        self.last = Gauge(
            "marway_gateway_duty_last_success_timestamp_seconds",
            "When this process last did a background duty to its end; Unix time.",
            ("duty",),
            registry=registry,
        )


class Duties:
    """The jobs of one gateway process.

    Args:
        lease: Its hold on the lease, or its wait for it.
        jobs: What to do while it is held; each in a task of its own, the first time at once.
        metrics: Where to say what is done.
        check: Called in a thread before the lease is asked for; raises where nothing may be written, such as in a
            directory that is no registry.
        first_s: How long after the start the lease is first asked for, in seconds.
        renew_s: Time between two renewals, and between two looks while another has it, in seconds.
    """

    def __init__(
        self,
        lease: Lease,
        jobs: Sequence[Job],
        *,
        metrics: DutyMetrics,
        check: Callable[[], None] = lambda: None,
        first_s: float = 0.0,
        renew_s: float = RENEW_S,
    ) -> None:
        self._lease = lease
        self._jobs = jobs
        self._check = check
        self._first_s = first_s
        self._renew_s = renew_s
        self._tasks = TaskSet()
        self._running: list[asyncio.Task[None]] = []
        self._troubled = False
        # A thread of its own: a store that hangs must not keep requests' threads, nor be kept by theirs.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lease")
        self._runs, self._last = metrics.runs, metrics.last
        for job in jobs:  # there from the start, so that nothing done is told from nothing known
            self._runs.labels(job.name, "done")
            self._runs.labels(job.name, "failed")
            self._last.labels(job.name)

    @property
    def holding(self) -> bool:
        """Whether this process does the work of all."""
        return self._lease.left_s() > 0

    def start(self) -> None:
        """Wait for the lease, do the jobs while it is held, and wait anew when it is lost, until `aclose`."""
        self._tasks.start("duties", self._run)

    async def aclose(self) -> None:
        """End what is done, and give the lease back; a second call does nothing."""
        await self._tasks.aclose()
        with contextlib.suppress(MarwayError, TimeoutError, RuntimeError):  # it runs out by itself
            async with asyncio.timeout(_RELEASE_S):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._give_back)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        await asyncio.sleep(self._first_s)
        try:
            while True:
                await self._renew()
                await asyncio.sleep(self._renew_s * random.uniform(1 - _JITTER, 1))
        finally:
            await self._end()

    async def _renew(self) -> None:
        """Ask the store once, and have the jobs run exactly while the lease is held."""
        asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        if self._running:
            await asyncio.wait({asking}, timeout=self._lease.left_s())
            if not asking.done():  # the store hangs, and others may have the lease by now
                await self._end()
        try:
            held = await asking
        except MarwayError as exc:
            if not self._troubled:
                _log.warning("the lease %r cannot be had now: %s", self._lease.name, exc.message)
            self._troubled = True
            held = self.holding
        else:
            self._troubled = False
        if held and not self._running:
            _log.info(
                "this process holds the lease %r from now on, and does its work for all gateways", self._lease.name
            )
            self._running = [asyncio.create_task(self._repeat(job), name=f"duty:{job.name}") for job in self._jobs]
        elif not held:
            await self._end()

    def _ask(self) -> bool:
        self._check()  # nothing is written to the mount point of a registry that is away
        return self._lease.renew()

    def _give_back(self) -> None:
        self._check()
        self._lease.release()

    async def _repeat(self, job: Job) -> None:
        try:
            await asyncio.sleep(job.first_s)
            await self._repeat_for_ever(job)
        finally:
            if job.ended is not None:
                job.ended()

    async def _repeat_for_ever(self, job: Job) -> None:
        failed = ""
        while True:
            pause_s = None
            try:
                pause_s = await job.run()
            except Exception as exc:
                why = exc.message if isinstance(exc, MarwayError) else repr(exc)
                if why != failed:  # told once a trouble, not once an interval
                    _log.error("%s: %s", job.name, why, exc_info=None if isinstance(exc, MarwayError) else exc)
                failed = why
                self._runs.labels(job.name, "failed").inc()
            else:
                failed = ""
                self._runs.labels(job.name, "done").inc()
                self._last.labels(job.name).set(time.time())
            pause_s = job.interval_s if pause_s is None else pause_s
            await asyncio.sleep(pause_s * random.uniform(1 - _JITTER, 1 + _JITTER))

    async def _end(self) -> None:
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
