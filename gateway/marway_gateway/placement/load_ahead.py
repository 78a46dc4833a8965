"""Has pods load versions before requests for them go there.

A pod that should serve a version and does not have it ready (it is new, it came back, a pod before it left, or load
spills over to it) is asked once to load it, while requests go on to the pods that have it. When the set of healthy
pods changes, the versions that were requested lately are looked through, so that their new homes begin at once and
not with the next request.
"""

from __future__ import annotations

import asyncio
import logging

from marway.errors import MarwayError
from marway_gateway.observe.metrics import Metrics
from marway_gateway.placement.choice import PlacementSpec
from marway_gateway.placement.pod import Pod, VersionKey
from marway_gateway.placement.pod_api import PodApi
from marway_gateway.placement.podset import PodSet
from marway_gateway.tasks import TaskSet

__all__ = ["LoadAhead"]

_ASKED_MAX = 4000
_RECENT_S = 60.0
"""How long after its last request a version counts as in use."""
_AGAIN_S = 15.0
"""A pod is asked again for the same version no sooner: it may be evicting it, or failing to load it."""
_SLICE = 50
_log = logging.getLogger(__name__)


class LoadAhead:
    """Asks pods for loads, each once, a bounded number at a time.

    Args:
        pods: Which pods should serve what; its `on_missing` and `on_change` are ours from here on.
        concurrency: Loads asked for at once.
    """

    def __init__(self, pods: PodSet, api: PodApi, *, concurrency: int, metrics: Metrics) -> None:
        self._pods = pods
        self._api = api
        self._slots = asyncio.Semaphore(concurrency)
        self._loads = metrics.load_aheads
        self._asked: dict[tuple[Pod, VersionKey], float] = {}
        self._running: dict[tuple[Pod, VersionKey], asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._tasks = TaskSet()
        pods.on_missing = self._want
        pods.on_change = self._changed.set

    def start(self) -> None:
        """Begin to look through the versions in use after each change of the pods."""
        self._tasks.start("load-ahead", self._follow_changes)

    async def aclose(self) -> None:
        """Ask for nothing more; loads that pods have begun go on there."""
        await self._tasks.aclose()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _want(self, pod: Pod, spec: PlacementSpec) -> None:
        if pod.status is None:
            return  # it may still be starting: its first word is a change, after which all versions are looked through
        what = pod, spec.key
        now = self._pods.now()
        if what in self._running or now - self._asked.get(what, -_AGAIN_S) < _AGAIN_S:
            return
        if len(self._asked) > _ASKED_MAX:
            self._asked = {each: at for each, at in self._asked.items() if now - at < _AGAIN_S}
        self._asked[what] = now
        task = asyncio.create_task(self._load(pod, spec.key), name=f"load-ahead:{pod.name}:{'/'.join(spec.key)}")
        self._running[what] = task
        task.add_done_callback(lambda _: self._running.pop(what, None))

    async def _load(self, pod: Pod, key: VersionKey) -> None:
        name, version = key
        async with self._slots:
            if key in pod.ready_versions or pod.removed:
                return
            try:
                await self._api.load(pod, name, version)
            except MarwayError as exc:
                self._loads.labels("failed").inc()
                _log.warning("%s %s was not loaded ahead: %s", name, version, exc.message)
            else:
                self._loads.labels("ok").inc()
                _log.info("pod %s has loaded %s %s ahead", pod.name, name, version)

    async def _follow_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for number, spec in enumerate(self._pods.used_since(self._pods.now() - _RECENT_S), 1):
                for pod in self._pods.wanted(spec):
                    if spec.key not in pod.ready_versions:
                        self._want(pod, spec)
                if number % _SLICE == 0:
                    await asyncio.sleep(0)  # requests go on in between
