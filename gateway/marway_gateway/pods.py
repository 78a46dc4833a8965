"""Watches the pods: asks each sidecar for its status, over and over."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from marway_gateway.placement import Pod, PodSet
from marway_gateway.tasks import TaskSet
from marway_gateway.upstream import AttemptFailed, Upstream

__all__ = ["PodWatcher"]

_LATE: Final = frozenset({"timeout", "connect_timeout"})


class PodWatcher:
    """Keeps a `PodSet` informed. One task a pod, so that one that hangs delays no other.

    Args:
        pods: What to inform.
        upstream: How to ask.
        interval_s: Time between two questions, and how long one may take.
        clock: Monotonic seconds, the same as the pods'.
    """

    def __init__(
        self, pods: PodSet, upstream: Upstream, *, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pods = pods
        self._upstream = upstream
        self._interval_s = interval_s
        self._clock = clock
        self._tasks = TaskSet()

    def start(self) -> None:
        """Begin to ask."""
        for pod in self._pods.pods:
            self._tasks.start(f"pod-watch:{pod.name}", lambda pod=pod: self._watch(pod))  # type: ignore[misc]

    async def aclose(self) -> None:
        """Stop asking."""
        await self._tasks.aclose()

    async def look(self, pod: Pod) -> None:
        """Ask one pod once."""
        asked_at = self._clock()
        try:
            status = await self._upstream.status(pod, timeout_s=self._interval_s)
        except AttemptFailed as exc:
            if exc.reason in _LATE:
                self._pods.late(pod, exc.why)
            else:
                self._pods.unreachable(pod, exc.why)
        else:
            self._pods.observe(pod, status, asked_at=asked_at)

    async def _watch(self, pod: Pod) -> None:
        while True:
            await self.look(pod)
            if pod.late_answers == 1:
                continue  # ask again at once: late or gone?
            # Jitter, so that many gateways do not ask in step.
            await asyncio.sleep(self._interval_s * random.uniform(0.8, 1.2))
