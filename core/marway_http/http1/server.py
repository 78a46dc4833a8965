"""uvicorn's server over our connections, started and stopped by us."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, Literal

import uvicorn

from marway.errors import InvalidSettings
from marway_http.http1.connection import HttpConnection
from marway_http.http1.limits import ConnectionLimits

__all__ = ["HttpServer", "address_of", "listening", "spare_the_collector"]

_KEEP_ALIVE_S: Final = 75
"""How long an idle connection is kept: longer than usual load balancers, gateways and clients keep theirs, so that they
close first and send no request into a closing connection."""
_COLLECT_AFTER: Final = 20_000
"""Objects that came and stayed, before the collector looks through the young ones; Python's own default is 700."""


class HttpServer(uvicorn.Server):
    """Serves one port.

    Args:
        app: The ASGI app.
        limits: What clients of the port may do.
        lifespan: Whether the app is told of the server's start and end.

    Attributes:
        up: Set once connections are accepted.
    """

    def __init__(self, app: Any, limits: ConnectionLimits, *, lifespan: Literal["on", "off"]) -> None:
        connection: Any = partial(HttpConnection, limits=limits)
        super().__init__(
            uvicorn.Config(
                app,
                http=connection,
                ws="none",
                loop="none",
                interface="asgi3",
                lifespan=lifespan,
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        self.up = asyncio.Event()

    def stop(self, drain_s: int) -> None:
        """Take no further connections, give requests in flight ``drain_s`` seconds, and end."""
        self.config.timeout_graceful_shutdown = drain_s
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `marway.process.stop_request`: uvicorn would stop one server and raise them again."""
        yield


@contextlib.contextmanager
def listening(host: str, port: int, *, flag: str, shared: bool = False) -> Iterator[socket.socket]:
    """Listen on a port before anything else is started, so that a taken one is one clear line.

    Args:
        host: An address of this machine.
        port: Where on it; 0 takes a free one.
        flag: The option that says which port, for the message.
        shared: Whether other processes of the same user, which say so too, have a socket of their own on the port; the
            kernel gives each its share of the connections from when it listens, which this one does not yet.

    Raises:
        InvalidSettings: The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP said outright: asyncio turns Nagle's algorithm off only then, and it costs 40 ms an answer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((host, port))
            if not shared:
                # Listening from here on: a second process on this port fails now, not when it is half up.
                sock.listen(2048)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise InvalidSettings(
                    f"port {port} on {host} is taken by another program: stop it, or give {flag} another port"
                ) from exc
            raise InvalidSettings(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
        sock.set_inheritable(False)
        yield sock


def address_of(sock: socket.socket) -> str:
    """Return HOST:PORT of a socket that listens."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spare_the_collector() -> None:
    """Take all that the start has left in memory out of the garbage collector's sight, and have it look less often.

    Going through the modules of FastAPI, pydantic and gRPC takes it tens of milliseconds, in which every request waits;
    requests themselves leave next to nothing that only it could free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
