"""Keeps the gateway's pods at what the configuration names and its sources find."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from marway_gateway.placement import PodSet
from marway_gateway.placement.pod_watch import PodWatcher
from marway_gateway.pod_addresses import PodAddress
from marway_gateway.tasks import TaskSet

__all__ = ["Changed", "Discovery", "FoundPod", "Source"]

_log = logging.getLogger(__name__)


Changed = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class FoundPod:
    """A pod, and whether it is on its way out.

    Attributes:
        address: Its name and URL.
        leaving: Whether it is being terminated: it gets no new work that another pod can do.
    """

    address: PodAddress
    leaving: bool = False


class Source(Protocol):
    """A place where pods are found. While it cannot be asked, the pods found last stay."""

    @property
    def pods(self) -> Sequence[FoundPod]:
        """Those that were found last."""

    @property
    def trouble(self) -> str | None:
        """Why it cannot be asked, or None while it can."""

    async def find(self) -> None:
        """Look once, for a bounded time; what goes wrong becomes `trouble`."""

    async def follow(self, changed: Changed) -> None:
        """Keep looking until cancelled, and tell of each change."""

    async def aclose(self) -> None:
        """Let go of connections; nothing is asked afterwards."""


class Discovery:
    """Keeps a `PodSet` at the pods that are configured or found.

    Args:
        fixed: Pods whose addresses are known.
        sources: Where the others are found. Two pods of the same name are one: the later source's, and a fixed one's
            before all.
        pods: What to keep.
        watcher: Told when pods came or went.
    """

    def __init__(
        self, fixed: Iterable[PodAddress], sources: Sequence[Source], pods: PodSet, watcher: PodWatcher
    ) -> None:
        self._fixed = [FoundPod(address) for address in fixed]
        self._sources = sources
        self._pods = pods
        self._watcher = watcher
        self._namesakes: set[str] = set()
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Look once everywhere, and go on doing so."""
        if not self._sources:
            return
        await self.look()
        for number, source in enumerate(self._sources):
            self._tasks.start(f"pod-discovery-{number}", lambda source=source: source.follow(self.apply))  # type: ignore[misc]

    async def aclose(self) -> None:
        """Stop looking."""
        await self._tasks.aclose()
        await asyncio.gather(*(source.aclose() for source in self._sources))

    async def look(self) -> None:
        """Look once everywhere."""
        await asyncio.gather(*(source.find() for source in self._sources))
        await self.apply()

    async def apply(self) -> None:
        """Have the gateway use the pods that are found now."""
        found: dict[str, FoundPod] = {}
        namesakes: set[str] = set()
        for pod in (*(pod for source in self._sources for pod in source.pods), *self._fixed):
            other = found.get(pod.address.name)
            if other is not None and other.address != pod.address:
                namesakes.add(pod.address.name)
            found[pod.address.name] = pod
        for name in namesakes - self._namesakes:
            _log.warning("two pods are called %s: the one at %s is used", name, found[name].address.url)
        self._namesakes = namesakes
        said = [source.trouble for source in self._sources if source.trouble is not None]
        self._pods.none_because = "; ".join(said) or "no pod is found: " + ", ".join(map(str, self._sources))
        self._pods.replace(
            (pod.address for pod in found.values()),
            leaving={name for name, pod in found.items() if pod.leaving},
        )
        await self._watcher.sync()
