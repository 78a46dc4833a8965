"""Runs the sidecar as a process, from start to a drain that loses nobody."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Final

import httptools
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from marway.errors import InvalidSettings
from marway.lifecycle import StopRequest, watch_for_stop
from marway.private_parts import HTTP_CYCLE, HTTP_PARSER, HTTP_PROTOCOL, HTTP_SERVER, check_private_parts
from marway_sidecar.api.app import create_app
from marway_sidecar.api.connection import BoundedConnection
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.sidecar import Sidecar

__all__ = ["run", "serve"]

logger = logging.getLogger(__name__)

_ORPHANED_DRAIN_S: Final = 3.0
_COLLECTOR: Final = (20_000, 10, 10)
"""Objects made and not freed before the collector looks at the young ones, by default 700; a look takes 1 ms."""
_KEEP_ALIVE_S: Final = 75  # longer than a gateway keeps an idle connection, so that it is the one to close


class _Server(uvicorn.Server):
    """uvicorn, started and stopped by us."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `watch_for_stop` has them


def run(settings: SidecarSettings) -> None:
    """Serve until SIGTERM, SIGINT or the end of the process that started this one.

    Raises:
        InvalidSettings: Something in the settings cannot be used; the message says what.
    """

    async def main() -> None:
        await serve(Sidecar(settings), stop=watch_for_stop())

    _calm_collector()
    uvloop.run(main())


async def serve(sidecar: Sidecar, *, stop: StopRequest, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until ``stop``, then finish what is in flight.

    Args:
        sidecar: What to serve; it is opened here, and closed.
        stop: When to stop.
        on_ready: Told the URL once connections are accepted.

    Raises:
        InvalidSettings: The port is taken, or uvicorn or httptools is of a version that will not do.
    """
    check_private_parts("httptools", httptools.HttpRequestParser, HTTP_PARSER)
    check_private_parts("uvicorn", HttpToolsProtocol, HTTP_PROTOCOL)
    check_private_parts("uvicorn", RequestResponseCycle, HTTP_CYCLE)
    check_private_parts("uvicorn", uvicorn.Server, HTTP_SERVER)
    settings = sidecar.settings
    config = uvicorn.Config(
        create_app(sidecar),
        interface="asgi3",
        http=BoundedConnection.with_pace(body_timeout_s=settings.body_timeout_s, body_min_rate=settings.body_min_rate),
        ws="none",
        loop="none",
        access_log=False,
        log_config=None,
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    with _listening(settings) as listener:
        server = _Server(config)
        url = "http://{}:{}".format(*listener.getsockname()[:2])
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve-http")
        up = asyncio.create_task(server.up.wait(), name="wait-for-http")
        await asyncio.wait({serving, up}, return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            logger.info("sidecar %s listens on %s", settings.name, url)
            if on_ready is not None:
                on_ready(url)
        up.cancel()
        waiting = asyncio.create_task(stop.wait(), name="wait-for-stop")
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not serving.done():
            sidecar.stop(at_once=stop.orphaned)
            limit_s = min(_ORPHANED_DRAIN_S, settings.drain_timeout_s) if stop.orphaned else settings.drain_timeout_s
            ended = await sidecar.drained(limit_s=limit_s)
            # Ends idle connections; when time is over, requests as well. A second lets last bytes leave.
            config.timeout_graceful_shutdown = 1 if ended else 0
            server.should_exit = True
        await serving


def _calm_collector() -> None:
    """Have Python look for cycles less often, and never among what is here for good: it took a seventh of our time.

    Requests leave no cycles behind; what fails leaves some, in tracebacks.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR)


@contextlib.contextmanager
def _listening(settings: SidecarSettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # IPPROTO_TCP said outright: asyncio turns Nagle's algorithm off only then, and it costs 40 ms an answer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as exc:
            raise InvalidSettings(
                f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}; choose another with --port"
            ) from exc
        listener.set_inheritable(False)
        yield listener
