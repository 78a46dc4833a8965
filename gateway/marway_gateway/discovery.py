"""Finds pods by DNS: the addresses behind a name, such as a headless Service, looked up every few seconds.

A name that cannot be looked up leaves the pods as they are. Kubernetes says the same of a service with no ready pod as
of one that does not exist, and health checks know better who of them serves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Sequence

from marway_gateway.placement import PodSet
from marway_gateway.pods import PodWatcher
from marway_gateway.settings import PodAddress, PodService
from marway_gateway.tasks import TaskSet

__all__ = ["Discovery", "look_up"]

_LOOK_UP_S = 5.0
_log = logging.getLogger(__name__)

LookUp = Callable[[PodService], Awaitable[list[PodAddress]]]


async def look_up(service: PodService) -> list[PodAddress]:
    """Return the pods behind a name, each called by its IP address and port.

    Raises:
        OSError: The name has no address, or nobody knows it.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(service.host, service.port, type=socket.SOCK_STREAM)
    hosts = sorted({str(address[0]) for *_, address in found})
    urls = (f"http://[{host}]:{service.port}" if ":" in host else f"http://{host}:{service.port}" for host in hosts)
    return [PodAddress.parse(url) for url in urls]


class Discovery:
    """Keeps a `PodSet` at the pods that its configuration and DNS name.

    Args:
        configured: Pods and names of services.
        pods: What to keep.
        watcher: Told when pods came or went.
        interval_s: Time between two look-ups of a name.
        resolve: Looks a name up.
    """

    def __init__(
        self,
        configured: Sequence[PodAddress | PodService],
        pods: PodSet,
        watcher: PodWatcher,
        *,
        interval_s: float,
        resolve: LookUp = look_up,
    ) -> None:
        self._fixed = [each for each in configured if isinstance(each, PodAddress)]
        self._found: dict[PodService, list[PodAddress]] = {
            each: [] for each in configured if isinstance(each, PodService)
        }
        self._failing: set[PodService] = set()
        self._pods = pods
        self._watcher = watcher
        self._interval_s = interval_s
        self._resolve = resolve
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Look every name up once, and go on doing so."""
        if self._found:
            await self.look()
            self._tasks.start("pod-discovery", self._run)

    async def aclose(self) -> None:
        """Stop looking."""
        await self._tasks.aclose()

    async def look(self) -> None:
        """Look every name up once."""
        await asyncio.gather(*(self._look_up(service) for service in self._found))
        addresses = {address.name: address for found in self._found.values() for address in found}
        addresses.update((address.name, address) for address in self._fixed)
        self._pods.replace(addresses.values())
        await self._watcher.sync()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s * random.uniform(0.8, 1.2))
            await self.look()

    async def _look_up(self, service: PodService) -> None:
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                found = await self._resolve(service)
        except OSError as exc:  # TimeoutError is one
            if service not in self._failing:
                self._failing.add(service)
                kept = len(self._found[service])
                _log.warning("cannot look up %s, keeping its %d pods: %s", service, kept, repr(exc))
            return
        self._failing.discard(service)
        if found != self._found[service]:
            _log.info("%s has the pods %s", service, ", ".join(address.name for address in found))
        self._found[service] = found
