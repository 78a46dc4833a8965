"""Runs the sidecar as a process, from start to a drain that loses nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import uvloop

from marway.process.stop_request import StopRequest, watch_for_stop
from marway.wire.headers import OUTCOME, Outcome
from marway_http.channel import LARGE_BODY_BYTES
from marway_http.http1.limits import ConnectionLimits
from marway_http.http1.server import HttpServer, address_of, listening, spare_the_collector
from marway_sidecar.api.app import create_app
from marway_sidecar.api.framed import FramesUpgrade
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.sidecar import Sidecar

__all__ = ["run", "serve"]

logger = logging.getLogger(__name__)

_ORPHANED_DRAIN_S: Final = 3.0
_HEADERS_S: Final = 10.0
_KEPT_BYTES: Final = 64 * 1024 * 1024
_REFUSED: Final = f"{OUTCOME}: {Outcome.REFUSED}\r\n".encode()
"""Tells a gateway that it is the request's fault, and not the pod's."""


def run(settings: SidecarSettings) -> None:
    """Serve until SIGTERM, SIGINT or the end of the process that started this one.

    Raises:
        InvalidSettings: Something in the settings cannot be used; the message says what.
    """

    async def main() -> None:
        await serve(Sidecar(settings), stop=watch_for_stop())

    spare_the_collector()
    uvloop.run(main())


async def serve(sidecar: Sidecar, *, stop: StopRequest, on_ready: Callable[[str], None] | None = None) -> None:
    """Open the sidecar, serve until ``stop``, then finish what is in flight and close it.

    ``on_ready`` is told the URL once connections are accepted.

    Raises:
        InvalidSettings: The port is taken.
    """
    settings = sidecar.settings
    app = create_app(sidecar)
    limits = ConnectionLimits(
        header_timeout_s=_HEADERS_S,
        body_timeout_s=settings.body_timeout_s,
        body_min_rate=settings.body_min_rate,
        piece_bytes=LARGE_BODY_BYTES,
        kept_bytes=_KEPT_BYTES,
        refusal_headers=_REFUSED,
        upgrade=FramesUpgrade(sidecar.predictor.answer_framed, app.guard),
    )
    with listening(settings.host, settings.port, flag="--port") as listener:
        server = HttpServer(app, limits, lifespan="on")
        url = f"http://{address_of(listener)}"
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
            server.stop(1 if ended else 0)
        await serving
