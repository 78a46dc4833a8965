"""Keeps the gateway's pods at what the configuration names and its sources find; a DNS name is one of them."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from marway_gateway.addresses import PodAddress, PodService
from marway_gateway.placement import PodSet
from marway_gateway.placement.pod_watch import PodWatcher
from marway_gateway.tasks import TaskSet

__all__ = ["Changed", "Discovery", "DnsSource", "FoundPod", "Source", "look_up"]

_LOOK_UP_S = 5.0
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


LookUp = Callable[[PodService], Awaitable[list[PodAddress]]]


async def look_up(service: PodService) -> list[PodAddress]:
    """Return the pods behind a name, each called by its IP address and port.

    Raises:
        OSError: The name has no address, or nobody knows it.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(service.host, service.port, type=socket.SOCK_STREAM)
    hosts = sorted({str(address[0]) for *_, address in found})
    return [PodAddress.at(host, service.port) for host in hosts]


class DnsSource:
    """The addresses behind a name, such as a headless Service's, looked up every few seconds.

    A name that cannot be looked up leaves the pods as they are. Kubernetes says the same of a service with no ready pod
    as of one that does not exist, and health checks know better who of them serves.

    Args:
        service: The name and the port.
        interval_s: Time between two look-ups.
        resolve: Looks the name up.
    """

    def __init__(self, service: PodService, *, interval_s: float, resolve: LookUp = look_up) -> None:
        self.pods: tuple[FoundPod, ...] = ()
        self.trouble: str | None = None
        self._service = service
        self._interval_s = interval_s
        self._resolve = resolve

    def __str__(self) -> str:
        return str(self._service)

    async def find(self) -> None:
        """Look the name up once."""
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                addresses = await self._resolve(self._service)
        except OSError as exc:  # TimeoutError is one
            if self.trouble is None:
                _log.warning("cannot look up %s, keeping its %d pods: %s", self, len(self.pods), repr(exc))
            self.trouble = f"cannot look up {self}: {exc}"
            return
        self.trouble = None
        found = tuple(FoundPod(address) for address in addresses)
        if found != self.pods:
            _log.info("%s has the pods %s", self, ", ".join(address.name for address in addresses))
        self.pods = found

    async def follow(self, changed: Changed) -> None:
        """Look the name up over and over."""
        while True:
            await asyncio.sleep(self._interval_s * random.uniform(0.8, 1.2))
            await self.find()
            await changed()

    async def aclose(self) -> None:
        """Do nothing: no connection is kept."""


class Discovery:
    """Keeps a `PodSet` at the pods that are configured or found.

    Args:
        fixed: Pods whose addresses are known.
        sources: Where the others are found. Two pods of the same name are one: the later source's, and a fixed one's
            before all.
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
        troubles = [source.trouble for source in self._sources if source.trouble is not None]
        self._pods.none_because = "; ".join(troubles) or "no pod is found: " + ", ".join(map(str, self._sources))
        self._pods.replace(
            (pod.address for pod in found.values()),
            leaving={name for name, pod in found.items() if pod.leaving},
        )
        await self._watcher.sync()
