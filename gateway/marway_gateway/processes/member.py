"""One of the processes of a gateway, and what it tells the one that started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from dataclasses import dataclass
from typing import Final

import uvloop

from marway.errors import MarwayError
from marway.process.stop_request import watch_for_stop
from marway_gateway.observe.peers import Peers
from marway_gateway.server import Addresses, logging_to_stdout, serve
from marway_gateway.settings import GatewaySettings
from marway_http.http1.server import spare_the_collector

__all__ = ["BEAT_S", "READY", "Start", "main"]

BEAT_S: Final = 1.0
"""How often a process says that its event loop turns."""
READY: Final = b"ready"
"""Its first line once it takes connections; each line before it is why it cannot, and empty ones are beats."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a process is told, pickled, on its standard input.

    Attributes:
        settings: With the ports that all of them share.
        peers: Which of them it is.
        channel: The descriptor to which it writes lines.
    """

    settings: GatewaySettings
    peers: Peers
    channel: int


def main() -> None:
    """Be a process of a gateway, until told to stop or until the parent's end."""
    start: Start = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    os.set_blocking(start.channel, False)
    with logging_to_stdout(lock=start.peers.log_lock):
        try:
            uvloop.run(_serve(start))
        except MarwayError as exc:
            _tell(start.channel, " ".join(exc.message.split()).encode())
            sys.exit(1)


async def _serve(start: Start) -> None:
    loop = asyncio.get_running_loop()

    def beat() -> None:
        _tell(start.channel, b"")
        loop.call_later(BEAT_S, beat)

    def ready(_: Addresses) -> None:
        spare_the_collector()
        _tell(start.channel, READY)

    stop = watch_for_stop()
    beat()
    await serve(start.settings, stop=stop, on_ready=ready, peers=start.peers)


def _tell(channel: int, line: bytes) -> None:
    with contextlib.suppress(OSError):  # the parent has gone, of which the lifeline tells, or reads nothing just now
        os.write(channel, line + b"\n")
