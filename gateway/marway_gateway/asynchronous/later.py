"""Takes predictions in that are answered later, works on them, and takes up those of gateways that are gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from marway.errors import MarwayError, Overloaded
from marway.objects import ObjectStore
from marway_gateway.asynchronous.spool import Accepted, Claim, Kept, Spool, new_id
from marway_gateway.settings import GatewaySettings
from marway_gateway.tasks import Jobs, TaskSet

__all__ = ["Answered", "AsyncLimits", "LaterPredictions", "Performs", "predicting_later"]

_THREADS: Final = 4
_BUSY: Final = (429, 503)
_RETRY_S: Final = 1.0
_RETRY_MAX_S: Final = 10.0
_KEEP_TRIES: Final = 5
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as its caller would have had it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """After how many seconds to ask again, where it says that there was no room."""
        wait = dict(self.headers).get("retry-after", "")
        return float(wait) if wait.isdigit() else _RETRY_S


Performs = Callable[[Accepted, bytes, float], Awaitable[Answered]]
"""Predicts, within so many seconds. Cancelled, it may answer that too."""


@dataclass(frozen=True, slots=True)
class AsyncLimits:
    """How many requests one gateway takes in, how many it works on at once, and how long answers are kept.

    Attributes:
        requests, bytes: Taken in and not yet answered, of this gateway; 0 requests turn it off.
        concurrency: Worked on at once.
        timeout_s: From being taken in to the answer, where the caller says nothing else.
        keep_s: How long answers are given.
        lease_s: How long a gateway is not heard of until another takes up its work.
    """

    requests: int
    bytes: int
    concurrency: int
    timeout_s: float
    keep_s: float
    lease_s: float


@asynccontextmanager
async def predicting_later(
    settings: GatewaySettings, store: ObjectStore, metrics: CollectorRegistry
) -> AsyncIterator[LaterPredictions]:
    """Open what answers later; it begins to work once `begin` gave it what predicts."""
    limits = AsyncLimits(
        requests=settings.async_requests,
        bytes=settings.async_bytes,
        concurrency=settings.async_concurrency,
        timeout_s=settings.async_timeout_s,
        keep_s=settings.async_keep_s,
        lease_s=settings.async_lease_s,
    )
    later = LaterPredictions(Spool(store, lease_s=limits.lease_s), limits, metrics)
    try:
        yield later
    finally:
        await later.aclose()


class LaterPredictions:
    """Used between `begin` and `aclose`.

    Args:
        spool: Where requests and answers are.
        limits: How many, how long.
        metrics: Where its metrics go.
    """

    def __init__(self, spool: Spool, limits: AsyncLimits, metrics: CollectorRegistry) -> None:
        self.limits = limits
        self._spool = spool
        self._performs: Performs | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="async")
        self._places = asyncio.Semaphore(limits.concurrency)
        self._mine: dict[str, int] = {}
        self._bytes = 0
        self._working: dict[str, asyncio.Task[Answered]] = {}
        self._stopped: set[str] = set()
        self._jobs, self._tasks = Jobs(), TaskSet()
        self._outcomes = Counter(
            "marway_gateway_async_requests_total",
            "Predictions that were asked to be answered later, by what became of them here.",
            ("outcome",),
            registry=metrics,
        )
        pending = Gauge(
            "marway_gateway_async_pending", "Those that this gateway has taken in and not answered.", registry=metrics
        )
        pending.set_function(lambda: len(self._mine))

    def begin(self, performs: Performs) -> None:
        """Work from now on, with what predicts."""
        self._performs = performs
        if self.limits.requests:
            self._tasks.start("async-predictions", self._take_up_for_ever)

    async def aclose(self) -> None:
        """Give back what is not answered, for other gateways to take up."""
        await self._tasks.aclose()
        await self._jobs.aclose()
        await asyncio.to_thread(self._threads.shutdown)

    async def accept(self, head: Accepted, body: bytes) -> str:
        """Take a request in, and return its id once it is kept.

        Raises:
            Overloaded: There are too many, or too many bytes of them.
            RegistryUnavailable: The store does not take it.
        """
        limits = self.limits
        if len(self._mine) >= limits.requests or (self._mine and self._bytes + len(body) > limits.bytes):
            self._outcomes.labels("refused").inc()
            raise Overloaded(
                f"{len(self._mine)} predictions of {self._bytes} bytes wait here to be answered later: send it later, "
                "or without `Prefer: respond-async`",
                retry_after_s=_RETRY_S,
            )
        ticket = new_id()
        self._hold(ticket, len(body))
        try:
            await self._call(self._spool.accept, ticket, head, body)
        except BaseException:
            self._let_go(ticket)
            raise
        self._outcomes.labels("accepted").inc()
        self._jobs.start(f"async:{ticket}", partial(self._do, ticket, fresh=True))
        return ticket

    async def result(self, ticket: str) -> tuple[Kept, bytes] | bool:
        """Return an answer; True where there will be one, False where there is no such prediction."""
        found = await self._call(self._spool.result, ticket)
        if found is not None:
            return found
        if await self._call(self._spool.is_pending, ticket):
            return True
        return await self._call(self._spool.result, ticket) or False  # it may have been answered between

    async def cancel(self, ticket: str) -> bool:
        """End a prediction wherever it is worked on, and forget its answer; return whether there was one."""
        known = await self._call(self._spool.cancel, ticket)
        if known:
            self._outcomes.labels("cancelled").inc()
        self._stop(ticket)
        return known

    async def _do(self, ticket: str, *, fresh: bool) -> None:
        """Answer one request, unless another gateway does."""
        claim = None
        try:
            async with self._places:
                claim = await self._call(lambda: self._spool.claim(ticket, fresh=fresh))
                if claim is None:
                    return
                if not fresh:
                    if await self._call(self._spool.forget_answered, ticket):
                        return
                    self._outcomes.labels("taken_up").inc()
                found = await self._call(self._spool.request, ticket)
                if found is None:  # cancelled, or answered by one that was slow
                    return
                answered = await self._worked(claim, *found)
                if answered is not None:
                    await self._keep(ticket, answered)
                    claim = None
        finally:
            self._let_go(ticket)
            if claim is not None:
                await asyncio.shield(self._call(self._spool.release, claim))

    async def _worked(self, claim: Claim, head: Accepted, body: bytes) -> Answered | None:
        """Return the answer; None where it is not to be kept: the claim is lost, or it was cancelled."""
        task = self._working[claim.ticket] = asyncio.create_task(
            self._answer(claim.ticket, head, body), name=f"async-work:{claim.ticket}"
        )
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=self.limits.lease_s / 3)
                if done:
                    break
                try:
                    held = await self._call(self._spool.renew, claim)
                except MarwayError as exc:
                    _log.warning("the claim on the prediction %s was not renewed: %s", claim.ticket, exc.message)
                    continue
                if not held:
                    return None
            return None if task.cancelled() else task.result()
        finally:
            self._stop(claim.ticket)
            await asyncio.gather(task, return_exceptions=True)
            del self._working[claim.ticket]
            self._stopped.discard(claim.ticket)

    def _stop(self, ticket: str) -> None:
        """End the work on a request, where it is worked on here; how that is answered is not kept."""
        if (task := self._working.get(ticket)) is not None:
            self._stopped.add(ticket)
            task.cancel()

    async def _answer(self, ticket: str, head: Accepted, body: bytes) -> Answered:
        """Predict, and again where there was no room, as long as its deadline lets."""
        assert self._performs is not None
        while True:
            answered = await self._performs(head, body, max(0.001, head.until - time.time()))
            if ticket in self._stopped:
                raise asyncio.CancelledError  # which what predicts may have answered, as when a gateway stops
            wait_s = min(_RETRY_MAX_S, answered.retry_after_s)
            if answered.status not in _BUSY or head.until - time.time() <= wait_s:
                return answered
            await asyncio.sleep(wait_s)

    async def _keep(self, ticket: str, answered: Answered) -> None:
        head = Kept(status=answered.status, headers=answered.headers, until=time.time() + self.limits.keep_s)
        for attempt in range(_KEEP_TRIES):
            try:
                first = await self._call(self._spool.finish, ticket, head, answered.body)
            except MarwayError:
                if attempt == _KEEP_TRIES - 1:
                    self._outcomes.labels("not_kept").inc()
                    raise  # the request is there: once the lease has ended, somebody does it again
                await asyncio.sleep(_RETRY_S * 2**attempt)
            else:
                self._outcomes.labels("answered" if first else "cancelled").inc()
                return

    async def _take_up_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.limits.lease_s / 2)
            for ticket in await self._call(lambda: list(self._spool.pending())):
                if ticket not in self._mine and len(self._mine) < self.limits.concurrency:
                    self._hold(ticket, 0)
                    self._jobs.start(f"async:{ticket}", partial(self._do, ticket, fresh=False))

    def _hold(self, ticket: str, size: int) -> None:
        self._mine[ticket] = size
        self._bytes += size

    def _let_go(self, ticket: str) -> None:
        self._bytes -= self._mine.pop(ticket, 0)

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*arguments))
