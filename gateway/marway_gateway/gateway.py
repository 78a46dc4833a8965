"""The parts of a running gateway, opened together and closed in reverse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TextIO

from marway.errors import InvalidSettings
from marway.objects import open_store
from marway.registry import Registry
from marway.resolve.reader import RegistryReader
from marway.resolve.resolver import Resolver
from marway_gateway.health import Readiness
from marway_gateway.logs import AccessLog, LogSink
from marway_gateway.placement import PodSet
from marway_gateway.pods import PodWatcher
from marway_gateway.predict import Predictor
from marway_gateway.settings import GatewaySettings
from marway_gateway.telemetry import Metrics, Telemetry
from marway_gateway.upstream import Upstream

__all__ = ["Gateway", "open_gateway"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the apps and the gRPC server of one process share."""

    settings: GatewaySettings
    reader: RegistryReader
    resolver: Resolver
    pods: PodSet
    predictor: Predictor
    readiness: Readiness
    telemetry: Telemetry
    upstream: Upstream


@asynccontextmanager
async def open_gateway(
    settings: GatewaySettings,
    *,
    registry: Registry | None = None,
    log_stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Gateway]:
    """Open a gateway's parts for as long as the context lasts.

    Args:
        settings: All of them.
        registry: Read instead of the one that the settings name.
        log_stream: Where access log lines go; stderr when None.
        clock: Monotonic seconds, for caches, health and ejection.

    Raises:
        InvalidSettings: No registry is named, or it is of no known kind.
    """
    if registry is None:
        if settings.registry is None:
            raise InvalidSettings(
                "no registry is named: give --registry URL or set MARWAY_REGISTRY, for example to file:///path"
            )
        registry = Registry(open_store(settings.registry))
    async with AsyncExitStack() as stack:
        access_log = None
        if settings.access_log:
            sink = LogSink(log_stream)
            stack.push_async_callback(asyncio.to_thread, sink.close)
            access_log = AccessLog(sink)
        telemetry = Telemetry(Metrics(), access_log)
        reader = RegistryReader(registry, threads=settings.registry_threads, clock=clock)
        stack.push_async_callback(reader.aclose)
        resolver = Resolver(
            reader,
            state_ttl_s=settings.state_ttl_s,
            state_max_stale_s=settings.state_max_stale_s,
            negative_ttl_s=settings.negative_ttl_s,
            wait_s=settings.registry_timeout_s,
            clock=clock,
        )
        stack.push_async_callback(resolver.aclose)
        upstream = Upstream(connect_timeout_s=settings.connect_timeout_s, buffered_bytes=settings.buffered_body_bytes)
        stack.push_async_callback(upstream.aclose)
        pods = PodSet(
            settings.pods,
            eject_after_failures=settings.eject_after_failures,
            eject_s=settings.eject_s,
            eject_max_s=settings.eject_max_s,
            on_ejection=telemetry.metrics.ejections.inc,
            clock=clock,
        )
        watcher = PodWatcher(pods, upstream, interval_s=settings.health_interval_s, clock=clock)
        stack.push_async_callback(watcher.aclose)
        watcher.start()
        yield Gateway(
            settings=settings,
            reader=reader,
            resolver=resolver,
            pods=pods,
            predictor=Predictor(
                resolver=resolver,
                pods=pods,
                upstream=upstream,
                telemetry=telemetry,
                max_retries=settings.max_retries,
            ),
            readiness=Readiness(
                pods,
                reader,
                max_stale_s=settings.state_max_stale_s,
                wait_s=settings.registry_timeout_s,
                retry_after_s=settings.health_interval_s,
                clock=clock,
            ),
            telemetry=telemetry,
            upstream=upstream,
        )
