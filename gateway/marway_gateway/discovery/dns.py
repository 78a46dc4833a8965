"""Pods by DNS: the addresses behind a name, such as a headless Service's, looked up every few seconds.

A name that cannot be looked up leaves the pods as they are. Kubernetes says the same of a service with no ready pod as
of one that does not exist, and health checks know better who of them serves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable

from marway_gateway.discovery.discovery import Changed, FoundPod
from marway_gateway.pod_addresses import PodAddress, PodService

__all__ = ["DnsSource", "look_up"]

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
    return [PodAddress.at(host, service.port) for host in hosts]


class DnsSource:
    """The pods behind a name.

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
