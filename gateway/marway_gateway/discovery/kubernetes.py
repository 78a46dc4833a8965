"""Pods by EndpointSlices: listed once, then watched; listed again when the API no longer knows where the watch was.

As client-go's reflector does (k8s.io/client-go/tools/cache): a watch that ends or breaks goes on from the last version
that was seen, 410 Gone or nonsense means to begin anew, and pauses between attempts grow and are random, so that the
gateways of a cluster do not come back to a restarted API in step. While it is away the pods stay as they were last
said to be, and health checks find out who of them serves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

from marway_gateway.addresses import PodSlices
from marway_gateway.discovery.discovery import Changed, FoundPod
from marway_gateway.discovery.endpoint_slices import EndpointSlice, WatchEvent, pods_of
from marway_gateway.discovery.kubernetes_api import ApiTrouble, KubernetesApi

__all__ = ["SlicesSource"]

_FIRST_S: Final = 5.0
"""How long a gateway that starts waits for its first list."""
_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 30.0
_WATCH_S: Final = (240, 360)
"""How long one watch lasts, at random: what was missed by any mistake, ours or theirs, is made good by the next."""
_WELL_S: Final = 1.0
"""A watch that ends sooner, and without a word, did not work."""
_log = logging.getLogger(__name__)


class SlicesSource:
    """The pods of a Service's EndpointSlices.

    Args:
        configured: The Service, and the port of sidecars.
        api: How its slices are read; closed with this.
        pause_s: The pause after a first failure; before each further one it is twice as long.
    """

    def __init__(self, configured: PodSlices, api: KubernetesApi, *, pause_s: float = _PAUSE_S) -> None:
        self.pods: tuple[FoundPod, ...] = ()
        self.trouble: str | None = None
        self._configured = configured
        self._api = api
        self._slices: dict[str, EndpointSlice] = {}
        self._version: str | None = None
        self._pause_s = pause_s
        self._failures = 0

    def __str__(self) -> str:
        return str(self._configured)

    async def find(self) -> None:
        """List the slices."""
        try:
            async with asyncio.timeout(_FIRST_S):
                await self._list()
        except TimeoutError:
            await self._failed(ApiTrouble(f"it did not answer within {_FIRST_S:g} s"))
        except ApiTrouble as exc:
            await self._failed(exc)

    async def follow(self, changed: Changed) -> None:
        """List what was not listed yet, then watch."""
        while True:
            began = time.monotonic()
            try:
                if self._version is None:
                    await self._list()
                    await changed()
                await self._watch(self._version or "", changed)
                if time.monotonic() - began >= _WELL_S:
                    self._failures = 0
                    continue  # it ended as was asked for
                trouble = ApiTrouble("it ended a watch at once")
            except ApiTrouble as exc:
                trouble = exc
            await self._failed(trouble)
            await changed()  # for why there are no pods, if there are none
            await asyncio.sleep(self._pause(trouble))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    async def _list(self) -> None:
        slices, self._version = await self._api.list_slices()
        self._slices = {each.metadata.name: each for each in slices}
        self._merge()

    async def _watch(self, version: str, changed: Changed) -> None:
        async with self._api.watch_slices(version, duration_s=random.randint(*_WATCH_S)) as events:
            self._answers()
            async for event in events:
                self._failures = 0
                before = self.pods
                try:
                    self._take(event)
                except ValueError as exc:
                    raise ApiTrouble(
                        "it sent an event about something else than an EndpointSlice", list_again=True
                    ) from exc
                if self.pods != before:
                    await changed()

    def _take(self, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            self._version = event.version
            return
        found = event.slice
        if event.type == "DELETED":
            self._slices.pop(found.metadata.name, None)
        else:
            self._slices[found.metadata.name] = found
        self._version = found.metadata.resource_version
        self._merge()

    def _merge(self) -> None:
        found = pods_of(self._slices.values(), port=self._configured.port)
        if found != self.pods:
            names = (f"{pod.address.name}{' (terminating)' if pod.leaving else ''}" for pod in found)
            _log.info("%s has the pods %s", self, ", ".join(names) or "none")
        self.pods = found

    def _answers(self) -> None:
        if self.trouble is not None:
            _log.info("%s: the Kubernetes API answers again", self)
        self.trouble = None

    async def _failed(self, trouble: ApiTrouble) -> None:
        self._failures += 1
        if trouble.list_again:
            self._version = None
        if trouble.expected:
            _log.info("%s: the watch is too far behind (%s), listing again", self, trouble)
        else:
            message = f"{self}: cannot ask the Kubernetes API: {trouble}"
            if message != self.trouble:
                _log.warning("%s; keeping the %d pods known", message, len(self.pods))
            self.trouble = message
        await self._api.aclose()

    def _pause(self, trouble: ApiTrouble) -> float:
        """Return how long to wait before the next attempt, in seconds."""
        longest = min(self._pause_s * 2.0 ** min(self._failures - 1, 16), _PAUSE_MAX_S)
        return max(longest * random.uniform(0.5, 1.0), trouble.retry_after_s or 0.0)
