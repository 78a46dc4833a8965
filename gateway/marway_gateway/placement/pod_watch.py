"""Keeps the gateway informed about the pods, in two ways with a purpose each.

A *watch* (`GET /watch`) brings what changed on a pod as it changes: a drain or a TorchServe that went down is known
here within milliseconds. A *health check* (`GET /status`, over and over) finds out what a watch cannot tell: that a
pod hangs, or that nothing gets through to it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Final

from marway.wire.pods import PodEvent, PodStatus
from marway_gateway.placement.pod import Pod
from marway_gateway.placement.pod_api import PodApi
from marway_gateway.placement.podset import PodSet
from marway_gateway.tasks import TaskSet
from marway_gateway.transport.base import AttemptFailed

__all__ = ["PodWatcher", "merged"]

_LATE: Final = frozenset({"timeout", "connect_timeout"})


def merged(status: PodStatus | None, event: PodEvent) -> PodStatus | None:
    """Return what is known of a pod after ``event``; None while it has not said who it is."""
    status = event.pod or status
    if status is None or not (event.models or event.removed):
        return status
    models = {model.id: model for model in status.models}
    models.update((model.id, model) for model in event.models)
    for gone in event.removed:
        models.pop(gone, None)
    return status.model_copy(update={"models": tuple(models.values())})


class PodWatcher:
    """Keeps a `PodSet` informed. Two tasks a pod, so that one that hangs delays no other.

    Args:
        interval_s: Time between two health checks, how long one may take, and the pause before a watch that ended is
            opened again.
        clock: Monotonic seconds, the same as the pods'.
    """

    def __init__(
        self, pods: PodSet, api: PodApi, *, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pods = pods
        self._api = api
        self._interval_s = interval_s
        self._clock = clock
        self._tasks: dict[Pod, TaskSet] = {}
        self._told_at: dict[Pod, float] = {}

    async def sync(self) -> None:
        """Begin to ask and listen to pods that are new, and stop with those that are gone."""
        pods = set(self._pods.pods)
        for pod in pods - self._tasks.keys():
            tasks = self._tasks[pod] = TaskSet()
            tasks.start(f"pod-check:{pod.name}", lambda pod=pod: self._check(pod))  # type: ignore[misc]
            tasks.start(f"pod-watch:{pod.name}", lambda pod=pod: self._watch(pod))  # type: ignore[misc]
        await self._stop(self._tasks.keys() - pods)

    async def aclose(self) -> None:
        """Stop asking and listening."""
        await self._stop(set(self._tasks))

    async def _stop(self, pods: Iterable[Pod]) -> None:
        stopped = [self._tasks.pop(pod) for pod in list(pods)]
        for pod in self._told_at.keys() - self._tasks.keys():
            del self._told_at[pod]
        await asyncio.gather(*(tasks.aclose() for tasks in stopped))

    async def look(self, pod: Pod) -> None:
        """Ask one pod once."""
        asked_at = self._clock()
        try:
            status = await self._api.status(pod, timeout_s=self._interval_s)
        except AttemptFailed as exc:
            if exc.reason in _LATE:
                self._pods.late(pod, exc.why)
            else:
                self._pods.unreachable(pod, exc.why)
            return
        if pod.status is not None and self._told_at.get(pod, 0.0) > asked_at:
            status = pod.status  # the watch has said something newer meanwhile
        self._pods.observe(pod, status, asked_at=asked_at)

    async def follow(self, pod: Pod) -> None:
        """Take in what one pod says over its watch until that ends.

        Raises:
            AttemptFailed: It could not be opened, broke, or said something else than events.
        """
        opened_at = self._clock()
        status: PodStatus | None = None
        async for event in self._api.watch(pod):
            if event == PodEvent():
                continue  # a heartbeat
            status = merged(status, event)
            if status is not None:
                self._told_at[pod] = self._clock()
                # Only a health check begun after an ejection ends it: an event may have been on its way for long.
                self._pods.observe(pod, status, asked_at=opened_at)

    async def _check(self, pod: Pod) -> None:
        while True:
            await self.look(pod)
            if pod.late_answers == 1:
                continue  # ask again at once: late or gone?
            await self._pause()

    async def _watch(self, pod: Pod) -> None:
        while True:
            try:
                await self.follow(pod)
            except AttemptFailed:
                pass  # what it means for the pod, the health check finds out
            else:
                await self.look(pod)  # it ended the watch: it is stopping, or already gone
            await self._pause()

    async def _pause(self) -> None:
        # Jitter, so that many gateways do not ask in step.
        await asyncio.sleep(self._interval_s * random.uniform(0.8, 1.2))
