"""Starts the processes of a gateway, starts again those that end or hang, and ends them together.

Each is a gateway of its own, with a socket of its own on each port: the kernel gives every connection to one of them
(SO_REUSEPORT, Linux 3.9). The parent serves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from marway.errors import InvalidSettings, MarwayError
from marway.process.children import Lifeline, RestartPauses
from marway.process.stop_request import LIFELINE_ENV, StopRequest, watch_for_stop
from marway_gateway.observe.peers import Peers
from marway_gateway.processes.member import BEAT_S, READY, Start
from marway_gateway.server import check_admin_port, logging_to_stdout
from marway_gateway.settings import GatewaySettings
from marway_http.http1.server import address_of, listening

__all__ = ["Parent", "run_processes"]

_log = logging.getLogger(__name__)

_HANGS_S: Final = 15.0
"""A process whose event loop has not turned for so long is killed: its clients wait for nothing, and new ones come."""
_KILL_S: Final = 2.0
"""How much longer than it may drain a process has to end."""


def run_processes(settings: GatewaySettings, *, home: str | None) -> None:
    """Serve with as many processes as the settings say until SIGTERM, SIGINT or the end of who started this one.

    Args:
        settings: All of them.
        home: Named on the command line of every process.

    Raises:
        InvalidSettings: Something in the settings cannot be used; the message says what.
        MarwayError: A process ended while starting.
    """
    if sys.platform != "linux":
        raise InvalidSettings("several processes on one port need Linux: leave processes at 1, or start more gateways")
    check_admin_port(settings)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-gateway-")))
        ports = {
            name: stack.enter_context(_kept(getattr(settings, f"{name}host"), getattr(settings, f"{name}port"), flag))
            for name, flag in (("", "--port"), ("admin_", "--admin-port"), ("grpc_", "--grpc-port"))
        }
        if settings.torchserve_management:
            flag = "admin_grpc_port (MARWAY_GATEWAY_ADMIN_GRPC_PORT)"
            ports["admin_grpc_"] = stack.enter_context(_kept(settings.admin_host, settings.admin_grpc_port, flag))
        chosen = {f"{name}port": sock.getsockname()[1] for name, sock in ports.items()}
        settings = settings.model_copy(update=chosen)
        stack.enter_context(logging_to_stdout(lock=Peers(directory, 0, 1).log_lock))
        addresses = {
            "gateway": f"http://{address_of(ports[''])}",
            "admin": f"http://{address_of(ports['admin_'])}",
            "grpc": address_of(ports["grpc_"]),
            **({"admin_grpc": address_of(ports["admin_grpc_"])} if "admin_grpc_" in ports else {}),
        }

        async def main() -> None:
            await Parent(settings, directory, home=home).run(watch_for_stop(), addresses)

        asyncio.run(main())


class Parent:
    """The processes of one gateway.

    Args:
        settings: With the ports that they share; `processes` says how many there are.
        directory: Theirs alone.
        home: Named on their command lines.
        hangs_s: How long the event loop of one may stand still, in seconds.
    """

    def __init__(
        self, settings: GatewaySettings, directory: Path, *, home: str | None, hangs_s: float = _HANGS_S
    ) -> None:
        self._settings = settings
        self._hangs_s = hangs_s
        self._lifeline = Lifeline()
        self._members = [
            _Member(settings, Peers(directory, number, settings.processes), self._lifeline, home=home)
            for number in range(settings.processes)
        ]

    async def run(self, stop: StopRequest, addresses: dict[str, str]) -> None:
        """Keep all of them up until ``stop``.

        Args:
            stop: When to stop.
            addresses: Logged once all take connections.

        Raises:
            MarwayError: One does not come up at the start; its own words are in the message.
        """
        stopping = asyncio.create_task(stop.wait(), name="stop")
        keepers: list[asyncio.Task[None]] = []
        try:
            starting = asyncio.create_task(self._start_all(), name="start")
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _log.info("ready", extra={"fields": {**addresses, "processes": len(self._members)}})
                keepers += [asyncio.create_task(self._keep(member)) for member in self._members]
                await stopping
            else:
                starting.cancel()
        finally:
            stopping.cancel()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            if stop.orphaned:
                self._lifeline.close()  # which ends them sooner than a signal, as nobody waits for them
            limit_s = self._settings.lame_duck_s + self._settings.drain_timeout_s + _KILL_S
            await asyncio.gather(*(member.stop(limit_s, told=stop.orphaned) for member in self._members))
            self._lifeline.close()

    async def _start_all(self) -> None:
        await asyncio.gather(*(member.start() for member in self._members))

    async def _keep(self, member: _Member) -> None:
        pauses = RestartPauses()
        while True:
            since = time.monotonic()
            why = await member.until_ended(self._hangs_s)
            pause_s = pauses.after(time.monotonic() - since)
            when = f"in {pause_s:g} s" if pause_s else "at once"
            _log.warning("process %d of the gateway %s; starting it again %s", member.number, why, when)
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await member.start()
                    break
                except MarwayError as exc:
                    pause_s = pauses.after(0.0)
                    _log.error("%s; starting it again in %g s", exc.message, pause_s)


class _Member:
    def __init__(self, settings: GatewaySettings, peers: Peers, lifeline: Lifeline, *, home: str | None) -> None:
        self.number = peers.number
        self._settings = settings
        self._peers = peers
        self._lifeline = lifeline
        self._home = home
        self._process: asyncio.subprocess.Process | None = None
        self._lines = asyncio.StreamReader()
        self._transport: asyncio.ReadTransport | None = None

    async def start(self) -> None:
        """Start it, and return when it takes connections.

        Raises:
            MarwayError: It ended, with its own words if it had any.
        """
        self._forget()
        reading, writing = os.pipe()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "marway_gateway.processes", *(("--home", self._home) if self._home else ())),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(writing, self._lifeline.read_end),
                env={**os.environ, LIFELINE_ENV: str(self._lifeline.read_end)},
            )
        finally:
            os.close(writing)
        self._lines = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._lines), os.fdopen(reading, "rb", buffering=0)
        )
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(pickle.dumps(Start(self._settings, self._peers, writing)))
            await process.stdin.drain()
        process.stdin.close()
        words = ""
        while (line := await self._lines.readline()) != READY + b"\n":
            words = line.decode(errors="replace").strip() or words
            if not line:
                status = await process.wait()
                raise MarwayError(words or f"process {self.number} of the gateway ended with status {status}")

    async def until_ended(self, hangs_s: float) -> str:
        """Return what became of it, once it has ended or was killed because it hung."""
        assert self._process is not None
        why = "ended with status {}"
        while True:
            try:
                if not await asyncio.wait_for(self._lines.readline(), hangs_s):
                    break
            except TimeoutError:
                # Where all of the machine stood still, this process woke up as late as that one.
                with contextlib.suppress(TimeoutError):
                    if await asyncio.wait_for(self._lines.readline(), 2 * BEAT_S):
                        continue
                    break
                why = f"hung for {hangs_s:g} s and was killed"
                self._kill()
                break
        return why.format(await self._process.wait())

    async def stop(self, limit_s: float, *, told: bool) -> None:
        """End it, gently first unless it was told already; safe when it has ended or never started."""
        process = self._process
        if process is not None and process.returncode is None:
            if not told:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            try:
                await asyncio.wait_for(process.wait(), limit_s)
            except TimeoutError:
                self._kill()
                await process.wait()
        self._forget()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            assert self._process is not None
            self._process.kill()

    def _forget(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None


@contextlib.contextmanager
def _kept(host: str, port: int, flag: str) -> Iterator[socket.socket]:
    """Keep a port for the processes; connections go to them alone, as this socket does not listen.

    Raises:
        InvalidSettings: It is taken, also by processes that would share it, or the address is not this machine's.
    """
    with listening(host, port, flag=flag) as alone:
        number = alone.getsockname()[1]
    with listening(host, number, flag=flag, shared=True) as kept:
        yield kept
