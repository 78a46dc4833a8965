"""Watches rollouts: what all gateways counted is put together, judged, and followed by what is to be done.

Each process does it by itself, for the rollouts that it has requests of, and whoever does the background duties for
all others. None leads: whoever sees a verdict applies it, and the registry lets it happen once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from marway.errors import MarwayError
from marway.records import utc_now
from marway.resolve.resolver import Resolver
from marway.traffic import run_of
from marway.wire.rollouts import GuardEvidence
from marway_gateway.placement import PodSet
from marway_gateway.tasks import TaskSet
from marway_gateway.traffic.evidence import Evidence, judged, merged
from marway_gateway.traffic.rollouts.acting import Acting
from marway_gateway.traffic.rollouts.candidate import CandidateLoads
from marway_gateway.traffic.rollouts.deciding import Decision, decide
from marway_gateway.traffic.rollouts.exchange import EvidenceDocument, Exchange
from marway_gateway.traffic.rollouts.metrics import RolloutMetrics
from marway_gateway.traffic.rollouts.quality import explained, guards_of, quality_counts, take_in
from marway_gateway.traffic.rollouts.rollouts import Rollouts
from marway_gateway.traffic.rollouts.running import Running

__all__ = ["Watcher", "exchange_s"]

T = TypeVar("T")

LOOK_S: Final = 1.0
"""Time between two looks at a rollout: its own counts are judged that often."""
_EXCHANGE_S: Final = 2.0
_EXCHANGE_EACH_S: Final = 0.25
_EXCHANGE_MAX_S: Final = 30.0
_KEPT_S: Final = 10.0
"""A document that says nothing new but how long was watched waits so long."""
_ALIVE_S: Final = 20.0
"""A process whose document did not change for so long does not stand in line any more."""
_IN_LINE_S: Final = 2.0
"""How much later the next in line does what may wait: nothing is lost where it is done twice, but work."""
_THREADS: Final = 4
_AGAIN_MAX_S: Final = 60.0
_JUDGING: Final = 0.05
"""Part of a processor that judging may take, of all rollouts together: with many it is done less often."""
_log = logging.getLogger(__name__)


def exchange_s(processes: int) -> float:
    """Return the time between two exchanges, in seconds: each reads all others, so with many it is done less often."""
    return min(_EXCHANGE_MAX_S, max(_EXCHANGE_S, _EXCHANGE_EACH_S * processes))


class Watcher:
    """Looks after the rollouts that this process knows of.

    Args:
        rollouts: Which these are, and what was counted here.
        resolver: Says how labels are divided now.
        exchange: What other processes counted.
        candidates: Keeps them loaded.
        acting: Does what is decided.
        pods: Say how much memory versions take.
        metrics: Where to tell of it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        *,
        resolver: Resolver,
        exchange: Exchange,
        candidates: CandidateLoads,
        acting: Acting,
        pods: PodSet,
        metrics: RolloutMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rollouts = rollouts
        self._resolver = resolver
        self._exchange = exchange
        self._candidates = candidates
        self._acting = acting
        self._pods = pods
        self._metrics = metrics
        self._clock = clock
        self._troubles: dict[str, str] = {}
        self._tasks = TaskSet()
        # Threads of their own: a store that hangs must not keep requests' threads.
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rollouts")
        self._judging = ThreadPoolExecutor(1, thread_name_prefix="judge-rollouts")

    def start(self) -> None:
        """Look at all, over and over, until `aclose`."""
        self._tasks.start("rollouts", self._run)

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S * random.uniform(0.9, 1.1))

    async def look(self) -> None:
        """Look at all once."""
        await asyncio.gather(*(self._looked(running) for running in self._rollouts.running))

    async def aclose(self) -> None:
        """Store what was counted since it was last stored, and end what is being done; a second call does nothing."""
        await self._tasks.aclose()
        for running in self._rollouts.running:
            for task in (running.acting, running.loading):
                if task is not None:
                    task.cancel()
        last = (self._exchanged(each, read=False) for each in self._rollouts.running if each.traffic.rollout)
        await asyncio.gather(*last, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._judging.shutdown(wait=False, cancel_futures=True)

    async def evidence(self, running: Running, *, read: bool = False) -> Mapping[str, GuardEvidence]:
        """Return how each guard stands.

        Args:
            running: Of which rollout.
            read: Read first what others counted meanwhile; for who has not watched it.

        Raises:
            RegistryUnavailable: That cannot be read.
        """
        if read:
            await self._exchanged(running)
        return await self._judged(running)

    async def _looked(self, running: Running) -> None:
        try:
            await self._look(running)
        except MarwayError as exc:  # the registry is away: what is counted goes on being counted
            self._trouble(running, exc.message)
        except Exception:
            _log.exception("the rollout of %s %s was not looked at", running.model, running.label)
        else:
            self._troubles.pop(running.run, None)

    def _trouble(self, running: Running, why: str) -> None:
        if self._troubles.get(running.run) != why:
            _log.warning("the rollout of %s %s is not followed just now: %s", running.model, running.label, why)
        self._troubles[running.run] = why

    async def _look(self, running: Running) -> None:
        current = (await self._resolver.traffic(running.model)).get(running.label)
        if current is None or run_of(running.label, current) != running.run:
            self._end(running)
            return
        running.traffic = current
        if current.rollout is None:
            return  # of copies alone nothing is judged
        now = self._clock()
        if now - running.exchanged_at >= exchange_s(1 + len(running.alive)):
            await self._exchanged(running)
        running.watched(now)
        running.sample_memory(self._pods.pods)
        if now < running.judge_again_at:
            return
        evidence = await self._judged(running)
        self._metrics.watched(running, evidence)
        if running.acting is None:
            self._decide(running, evidence)

    def _decide(self, running: Running, evidence: Mapping[str, GuardEvidence]) -> None:
        decision = decide(running.traffic, evidence, running.step_s, running.failure)
        if decision is None:
            running.decided = None
            self._candidates.keep_ready(running)
            return
        forward = decision.action in ("step", "promote")
        if forward and running.refused and running.step_s >= running.traffic.step_time_s:
            decision = Decision("pause", None, "no pod could prove its golden answers again within the step's time")
        now = self._clock()
        if now < running.act_again_at:
            return
        if running.decided is None or running.decided[0] != decision.action:
            running.decided = decision.action, now
        if decision.action != "roll_back" and now - running.decided[1] < self._place(running) * _IN_LINE_S:
            return
        self._begin(running, decision, evidence)

    def _begin(self, running: Running, decision: Decision, evidence: Mapping[str, GuardEvidence]) -> None:
        running.acting = asyncio.create_task(
            self._acting.apply(running, decision, evidence), name=f"rollout:{running.model}:{running.label}"
        )
        running.acting.add_done_callback(partial(self._acted, running))

    def _acted(self, running: Running, task: asyncio.Task[bool]) -> None:
        running.acting = None
        if task.cancelled():
            return
        if (failure := task.exception()) is not None:
            _log.error("what was decided about %s %s failed", running.model, running.label, exc_info=failure)
        if failure is None and task.result():
            running.refused = 0
            return
        # Each attempt leaves a report; what is refused for good, as where an older Marway moved the label, must not
        # fill the store.
        running.refused += 1
        running.act_again_at = self._clock() + min(_AGAIN_MAX_S, 2.0**running.refused)

    def _place(self, running: Running) -> int:
        """Return how many processes that watch it as well come before this one."""
        now = self._clock()
        alive = (process for process, at in running.alive.items() if now - at < _ALIVE_S)
        return sum(process < self._exchange.process for process in alive)

    async def _judged(self, running: Running) -> Mapping[str, GuardEvidence]:
        """Return how each guard stands by what is known here, in a thread: it takes some ten milliseconds."""
        traffic = running.traffic
        documents: list[Mapping[str, object] | Evidence] = [
            running.tally.document(),
            *(each.tally for each in running.others.values()),
        ]
        guards, quality = guards_of(running), quality_counts(running.quality)
        memory = running.memory_of_all()

        def judge() -> Mapping[str, GuardEvidence]:
            return judged(
                merged(documents),
                guards,
                traffic.alpha,
                traffic.step,
                sticky=traffic.sticky,
                quality=quality,
                memory=memory,
            )

        began = self._clock()
        found = await asyncio.get_running_loop().run_in_executor(self._judging, judge)
        ended = self._clock()
        running.judge_again_at = ended + (ended - began) * len(self._rollouts.running) / _JUDGING
        evidence = explained(found, running.quality)
        running.course.add(utc_now(), traffic.step, traffic.percent, evidence)
        return evidence

    async def _exchanged(self, running: Running, *, read: bool = True) -> None:
        """Store what was counted here, where that says anything new, and read what others stored."""
        now = self._clock()
        running.exchanged_at = now
        model, run, mine = running.model, running.run, running.document(self._exchange.process)
        if _news(running.written, mine, running.written_at, now):
            await self._call(self._exchange.write, model, run, mine)
            running.written, running.written_at = mine, now
        if not read:
            return
        others = await self._call(self._exchange.others, model, run)
        for process, document in others.items():
            if running.others.get(process) != document:
                running.alive[process] = now
        running.others = others
        if "quality" in running.traffic.guards:
            take_in(running, await self._call(self._exchange.quality, model, run))

    def _end(self, running: Running) -> None:
        if running.acting is not None:
            return  # it ends by what is done here: its last word is written first
        self._rollouts.forget(running)
        self._metrics.ended(running)
        self._exchange.forget(running.model, running.run)
        self._troubles.pop(running.run, None)

    async def _call(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args))


def _news(before: EvidenceDocument | None, now: EvidenceDocument, at: float, now_s: float) -> bool:
    if before is None:
        return True
    if now == before:
        return False
    same = now.model_copy(update={"watched_s": before.watched_s}) == before
    return not same or now_s - at >= _KEPT_S
