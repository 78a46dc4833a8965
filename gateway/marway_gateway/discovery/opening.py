"""The pods that a gateway knows, kept up to date, as long as it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from marway_gateway.discovery import Discovery, sources_of
from marway_gateway.observe.metrics import Metrics
from marway_gateway.placement import Ejection, PodSet
from marway_gateway.placement.load_ahead import LoadAhead
from marway_gateway.placement.pod_api import PodApi
from marway_gateway.placement.pod_watch import PodWatcher
from marway_gateway.settings import GatewaySettings, PodAddress

__all__ = ["watched_pods"]


@asynccontextmanager
async def watched_pods(
    settings: GatewaySettings, api: PodApi, metrics: Metrics, *, clock: Callable[[], float]
) -> AsyncIterator[PodSet]:
    """Find pods, watch them and load versions ahead on them for as long as the context lasts.

    Raises:
        InvalidSettings: `kubernetes://` pods are named outside a cluster.
    """
    async with AsyncExitStack() as stack:
        fixed = [each for each in settings.pods if isinstance(each, PodAddress)]
        pods = PodSet(
            fixed,
            ejection=Ejection(
                after_failures=settings.eject_after_failures,
                eject_s=settings.eject_s,
                eject_max_s=settings.eject_max_s,
                max_percent=settings.eject_max_percent,
                on_ejection=metrics.ejections.inc,
            ),
            spill_requests=settings.spill_requests,
            spill_factor=settings.spill_factor,
            max_requests=settings.max_requests_per_pod,
            clock=clock,
        )
        load_ahead = LoadAhead(pods, api, concurrency=settings.load_ahead_concurrency, metrics=metrics)
        stack.push_async_callback(load_ahead.aclose)
        load_ahead.start()
        watcher = PodWatcher(pods, api, interval_s=settings.health_interval_s, clock=clock)
        stack.push_async_callback(watcher.aclose)
        await watcher.sync()
        discovery = Discovery(fixed, sources_of(settings), pods, watcher)
        stack.push_async_callback(discovery.aclose)
        await discovery.start()
        yield pods
