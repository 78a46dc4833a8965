"""Runs the sidecar as a process, from start to a drain that loses nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn

from marway.errors import InvalidSettings
from marway.lifecycle import watch_for_stop
from marway_sidecar.app import Sidecar, create_app
from marway_sidecar.settings import SidecarSettings

__all__ = ["serve"]

logger = logging.getLogger(__name__)

_ORPHANED_DRAIN_S = 3.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `watch_for_stop` has them


async def serve(settings: SidecarSettings) -> None:
    """Serve until told to stop, then finish what is in flight.

    Raises:
        InvalidSettings: The port is taken.
    """
    stop = watch_for_stop()
    sidecar = Sidecar(settings)
    config = uvicorn.Config(
        create_app(sidecar),
        http="httptools",
        loop="none",
        access_log=False,
        log_config=None,
        lifespan="on",
        timeout_keep_alive=75,  # longer than a gateway keeps an idle connection, so that it is the one to close
    )
    with _listening(settings) as listener:
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve-http")
        logger.info("sidecar %s listens on http://%s:%d", settings.name, *listener.getsockname()[:2])
        waiting = asyncio.create_task(stop.wait(), name="wait-for-stop")
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        sidecar.drain()
        limit = _ORPHANED_DRAIN_S if stop.orphaned else settings.drain_timeout_s
        config.timeout_graceful_shutdown = max(1, round(limit))
        server.should_exit = True
        await serving


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
