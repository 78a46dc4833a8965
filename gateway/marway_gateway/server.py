"""The gateway's process: the public, the admin and the gRPC port, from start to a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import httptools
import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from marway.errors import InvalidSettings
from marway.private_parts import HTTP_CYCLE, HTTP_PARSER, HTTP_PROTOCOL, HTTP_SERVER, check_private_parts
from marway.process.stop_request import StopRequest, watch_for_stop
from marway_gateway.access.cors import Cors
from marway_gateway.admin import create_admin_app
from marway_gateway.app import create_app
from marway_gateway.gateway import open_gateway
from marway_gateway.http.protocol import ClientBounds, protocol_of
from marway_gateway.observe.logs import LogSink
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.grpc.server import GrpcServer

__all__ = ["Addresses", "run", "serve"]

_KEEP_ALIVE_S: Final = 75
"""How long an idle client connection is kept: longer than usual load balancers and clients keep theirs, so that they
close first and send no request into a closing connection."""
_COLLECT_AFTER: Final = 20_000
"""Objects that came and stayed, before the collector looks through the young ones; Python's own default is 700."""
_ORPHAN_DRAIN_S: Final = 3.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a gateway serves: two URLs, and HOST:PORT for gRPC."""

    gateway: str
    admin: str
    grpc: str


def run(settings: GatewaySettings) -> None:
    """Serve until SIGTERM, SIGINT or the end of the process that started this one.

    Raises:
        InvalidSettings: Something in the settings cannot be used; the message says what.
    """

    async def main() -> None:
        stop = watch_for_stop()
        await serve(settings, stop=stop, on_ready=_say_ready)

    with _logging_to_stdout():
        uvloop.run(main())


async def serve(settings: GatewaySettings, *, stop: StopRequest, on_ready: Callable[[Addresses], None]) -> None:
    """Serve all three ports until ``stop``, then drain.

    Args:
        settings: All of them.
        stop: When to stop.
        on_ready: Told where the ports are, once all accept connections.

    Raises:
        InvalidSettings: A port is taken, the admin port would be open to everybody, something else in the settings
            cannot be used, or uvicorn or httptools is of a version that will not do.
    """
    check_private_parts("httptools", httptools.HttpRequestParser, HTTP_PARSER)
    check_private_parts("uvicorn", HttpToolsProtocol, HTTP_PROTOCOL)
    check_private_parts("uvicorn", RequestResponseCycle, HTTP_CYCLE)
    check_private_parts("uvicorn", uvicorn.Server, HTTP_SERVER)
    if settings.admin_tokens_file is None and not _is_loopback(settings.admin_host):
        raise InvalidSettings(
            f"the admin port would be open to everybody on {settings.admin_host}: name a file of tokens in "
            "admin_tokens_file (MARWAY_GATEWAY_ADMIN_TOKENS_FILE), or leave admin_host at 127.0.0.1"
        )
    async with AsyncExitStack() as stack:
        public_socket = stack.enter_context(_listen(settings.host, settings.port, flag="--port"))
        admin_socket = stack.enter_context(_listen(settings.admin_host, settings.admin_port, flag="--admin-port"))
        gateway = await stack.enter_async_context(open_gateway(settings))
        grpc_server = GrpcServer(gateway, host=settings.grpc_host, port=settings.grpc_port)
        await grpc_server.start()
        stack.push_async_callback(grpc_server.stop, 0.0)
        cors = Cors(settings.cors_origins) if settings.cors_origins else None
        public = _HttpServer(create_app(settings, gateway=gateway), settings, cors=cors)
        admin = _HttpServer(create_admin_app(settings, gateway=gateway), settings)
        serving = [
            asyncio.create_task(public.serve(sockets=[public_socket]), name="public-http"),
            asyncio.create_task(admin.serve(sockets=[admin_socket]), name="admin-http"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        addresses = Addresses(
            gateway=f"http://{_address(public_socket)}",
            admin=f"http://{_address(admin_socket)}",
            grpc=f"{_bracketed(settings.grpc_host)}:{grpc_server.port}",
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
            public.leave()
            if stop.is_set() and not stop.orphaned:
                # Load balancers and clients that keep connections hear of it before the port is closed.
                await asyncio.wait(serving, timeout=settings.lame_duck_s, return_when=asyncio.FIRST_COMPLETED)
            drain_s = min(settings.drain_timeout_s, _ORPHAN_DRAIN_S) if stop.orphaned else settings.drain_timeout_s
            public.stop(drain_s)
            admin.stop(drain_s)
            await asyncio.gather(*serving, grpc_server.stop(drain_s))


class _HttpServer(uvicorn.Server):
    """uvicorn, started and stopped by us."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings, *, cors: Cors | None = None) -> None:
        self._bounds = ClientBounds(
            max_connections=settings.max_connections,
            header_timeout_s=settings.header_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            body_min_rate=settings.body_min_rate,
            write_timeout_s=settings.write_timeout_s,
            cors=cors,
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol_of(self._bounds),
                ws="none",
                lifespan="off",  # its parts are opened by `serve`, once for all ports
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        self.up = asyncio.Event()

    def leave(self) -> None:
        """Go on serving, but ask each client to connect anew, elsewhere."""
        self._bounds.leaving = True

    def stop(self, drain_s: float) -> None:
        """Take no further connections, give requests in flight ``drain_s`` seconds, and end."""
        self.config.timeout_graceful_shutdown = math.ceil(drain_s)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `marway.process.stop_request`: uvicorn would stop one server and raise them again."""
        yield


async def _until_up(*servers: _HttpServer) -> None:
    for server in servers:
        await server.up.wait()


@contextlib.contextmanager
def _listen(host: str, port: int, *, flag: str) -> Iterator[socket.socket]:
    """Bind a port before anything else is started, so that a taken one is one clear line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            # Listening from here on: a second gateway on this port fails now, not when it is half up.
            sock.listen(2048)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise InvalidSettings(
                    f"port {port} on {host} is taken by another program: stop it, or give {flag} another port"
                ) from exc
            raise InvalidSettings(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
        yield sock


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"{_bracketed(host)}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _spare_the_collector() -> None:
    """Take all that the start has left in memory out of the garbage collector's sight, and have it look less often.

    Going through the modules of FastAPI, pydantic and gRPC takes it tens of milliseconds, in which every request waits;
    requests themselves leave next to nothing that only it could free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


def _say_ready(addresses: Addresses) -> None:
    _spare_the_collector()
    fields = {"gateway": addresses.gateway, "admin": addresses.admin, "grpc": addresses.grpc}
    _log.info("ready", extra={"fields": fields})


@contextlib.contextmanager
def _logging_to_stdout() -> Iterator[None]:
    """Send everybody's log records to stdout as JSON lines, from a thread of its own."""
    sink = LogSink()
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], [sink.handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = before
        sink.close()
