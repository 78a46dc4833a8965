"""The gateway's process: the public, the admin and the gRPC ports, from start to a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import uvloop

from marway.errors import InvalidSettings
from marway.process.stop_request import StopRequest, watch_for_stop
from marway_gateway.access.origins import Cors
from marway_gateway.addresses import bracketed, is_loopback
from marway_gateway.admin.app import create_admin_app
from marway_gateway.app import create_app
from marway_gateway.gateway import Gateway, open_gateway
from marway_gateway.observe.logs import LogSink
from marway_gateway.observe.peers import Peers
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.grpc.server import GrpcServer, management, predictions
from marway_http.http1.limits import ConnectionLimits
from marway_http.http1.server import HttpServer, address_of, listening, spare_the_collector

__all__ = ["Addresses", "check_admin_port", "logging_to_stdout", "run", "serve"]

_ORPHAN_DRAIN_S: Final = 3.0
_SETTLING_S: Final = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a gateway serves: two URLs, and HOST:PORT for gRPC; `admin_grpc` is TorchServe's management API."""

    gateway: str
    admin: str
    grpc: str
    admin_grpc: str | None = None


def run(settings: GatewaySettings) -> None:
    """Serve until SIGTERM, SIGINT or the end of the process that started this one.

    Raises:
        InvalidSettings: Something in the settings cannot be used; the message says what.
    """

    async def main() -> None:
        stop = watch_for_stop()
        await serve(settings, stop=stop, on_ready=_say_ready)

    with logging_to_stdout():
        uvloop.run(main())


async def serve(
    settings: GatewaySettings,
    *,
    stop: StopRequest,
    on_ready: Callable[[Addresses], None],
    peers: Peers | None = None,
) -> None:
    """Serve all ports until ``stop``, then drain.

    Args:
        settings: All of them.
        stop: When to stop.
        on_ready: Told where the ports are, once all accept connections.
        peers: The processes that share the ports, where there are several.

    Raises:
        InvalidSettings: A port is taken, the admin port would be open to everybody, something else in the settings
            cannot be used.
    """
    check_admin_port(settings)
    async with AsyncExitStack() as stack:
        shared = peers is not None
        public_socket = stack.enter_context(listening(settings.host, settings.port, flag="--port", shared=shared))
        admin_socket = stack.enter_context(
            listening(settings.admin_host, settings.admin_port, flag="--admin-port", shared=shared)
        )
        gateway = await stack.enter_async_context(open_gateway(settings, peers=peers))
        if peers is not None:
            await stack.enter_async_context(peers.answering(gateway.telemetry.metrics.registry))
            await _until_settled(gateway)
        grpc_server = GrpcServer(gateway, predictions(settings), host=settings.grpc_host, port=settings.grpc_port)
        grpc_servers = [grpc_server]
        if settings.torchserve_management:
            host, port = settings.admin_host, settings.admin_grpc_port
            grpc_servers.append(GrpcServer(gateway, management(settings), host=host, port=port))
        for each in grpc_servers:
            await each.start()
            stack.push_async_callback(each.stop, 0.0)
        limits = ConnectionLimits(
            header_timeout_s=settings.header_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            body_min_rate=settings.body_min_rate,
            max_connections=settings.max_connections,
            write_timeout_s=settings.write_timeout_s,
            cors=Cors(settings.cors_origins).answer_headers if settings.cors_origins else None,
        )
        # The parts of an app are opened here, once for all ports.
        public = HttpServer(create_app(settings, gateway=gateway), limits, lifespan="off")
        admin = HttpServer(create_admin_app(settings, gateway=gateway), replace(limits, cors=None), lifespan="off")
        serving = [
            asyncio.create_task(public.serve(sockets=[public_socket]), name="public-http"),
            asyncio.create_task(admin.serve(sockets=[admin_socket]), name="admin-http"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        addresses = Addresses(
            gateway=f"http://{address_of(public_socket)}",
            admin=f"http://{address_of(admin_socket)}",
            grpc=f"{bracketed(settings.grpc_host)}:{grpc_server.port}",
            admin_grpc=f"{bracketed(settings.admin_host)}:{grpc_servers[-1].port}" if grpc_servers[1:] else None,
        )
        try:
            starting = asyncio.create_task(_until_up(public, admin), name="starting")
            await asyncio.wait({starting, *serving}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                on_ready(addresses)
            starting.cancel()
            await asyncio.wait({stopping, *serving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            gateway.readiness.draining = True
            limits.leaving = True  # each client is asked to connect anew, elsewhere
            if stop.is_set() and not stop.orphaned:
                # Load balancers and clients that keep connections hear of it before the port is closed.
                await asyncio.wait(serving, timeout=settings.lame_duck_s, return_when=asyncio.FIRST_COMPLETED)
            drain_s = min(settings.drain_timeout_s, _ORPHAN_DRAIN_S) if stop.orphaned else settings.drain_timeout_s
            public.stop(math.ceil(drain_s))
            admin.stop(math.ceil(drain_s))
            await asyncio.gather(*serving, *(each.stop(drain_s) for each in grpc_servers))


def check_admin_port(settings: GatewaySettings) -> None:
    """Refuse an admin port that anybody could use.

    Raises:
        InvalidSettings: It has no tokens, and is not on loopback.
    """
    if settings.admin_tokens_file is None and not is_loopback(settings.admin_host):
        raise InvalidSettings(
            f"the admin port would be open to everybody on {settings.admin_host}: name a file of tokens in "
            "admin_tokens_file (MARWAY_GATEWAY_ADMIN_TOKENS_FILE), or leave admin_host at 127.0.0.1"
        )


async def _until_settled(gateway: Gateway) -> None:
    """Return when it could serve, or after a while: connections that others could take are not for one that cannot."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLING_S):
            while True:
                if await gateway.readiness.trouble() is None:
                    return
                await asyncio.sleep(0.02)


async def _until_up(*servers: HttpServer) -> None:
    for server in servers:
        await server.up.wait()


def _say_ready(addresses: Addresses) -> None:
    spare_the_collector()
    fields = {name: value for name, value in asdict(addresses).items() if value is not None}
    _log.info("ready", extra={"fields": fields})


@contextlib.contextmanager
def logging_to_stdout(*, lock: Path | None = None) -> Iterator[None]:
    """Send everybody's log records to stdout as JSON lines, from a thread of its own.

    Args:
        lock: See `LogSink`.
    """
    sink = LogSink(lock=lock)
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], [sink.handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = before
        sink.close()
