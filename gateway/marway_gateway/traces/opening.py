"""Traces of a gateway, opened where they are on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.settings import GatewaySettings
from marway_gateway.transport import Upstream
from marway_http.traces import open_traces

__all__ = ["traced"]


@asynccontextmanager
async def traced(settings: GatewaySettings, telemetry: Telemetry) -> AsyncIterator[Upstream]:
    """Give what asks pods for as long as the context lasts; where traces are on, it and ``telemetry`` tell of all.

    Raises:
        InvalidSettings: They are on, and OpenTelemetry is not installed or its variables cannot be used.
    """
    async with AsyncExitStack() as stack:
        traces = open_traces(settings.traces, service="marway-gateway", instance=socket.gethostname())
        if traces is None:
            upstream = Upstream(
                connect_timeout_s=settings.connect_timeout_s, buffered_bytes=settings.buffered_body_bytes
            )
        else:
            # OpenTelemetry is an extra, and its modules are a second of a gateway's start.
            from marway_gateway.traces.spans import RequestTraces, TracedUpstream

            stack.push_async_callback(asyncio.to_thread, traces.close)
            telemetry.traces = RequestTraces(traces)
            upstream = TracedUpstream(
                traces, connect_timeout_s=settings.connect_timeout_s, buffered_bytes=settings.buffered_body_bytes
            )
        stack.push_async_callback(upstream.aclose)
        yield upstream
