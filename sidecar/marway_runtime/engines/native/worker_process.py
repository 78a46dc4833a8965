"""One worker as its parent, the runtime, sees it: forked or started plain, waited for, ended.

It is forked by the fork server, which is asked just as a shim asks it (`forkserver.server`): the connection over which
it was asked ends with the worker, and ends the worker when it is closed. Where that cannot be, it is a Python of its
own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from marway.errors import clip
from marway_runtime.devices import Given
from marway_runtime.engines.native.models_log import ModelsLog
from marway_runtime.worker.overlay import plain_command
from marway_runtime.workers import Worker

__all__ = ["Launch", "WorkerProcess"]

_SCRIPT: Final = Path(__file__).with_name("__main__.py")
_FORK_TIMEOUT_S: Final = 5.0
_CHANNEL_BYTES_MAX: Final = 64 * 1024
_PULSE_BYTES: Final = 8
_FORKING_OFF: Final = "forking is off"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker is started.

    Attributes:
        fork_socket: Where the fork server listens; None starts a Python of its own.
        home: Named on the command line of that one.
        overlay: The version's environment, which that one is told of; the fork server has it already.
        environment: The worker's whole environment.
        options: What it is told (`worker.main`); the pulse and the socket among them.
        log: Writes what it prints.
        title: Whose lines these are: `<server name>_<version>`.
        number: Which worker it is, of all that were started.
        device: The GPU that it was given.
    """

    fork_socket: Path | None
    home: Path
    overlay: Path | None
    environment: Mapping[str, str]
    options: Mapping[str, Any]
    log: ModelsLog
    title: str
    number: int
    device: Given | None = None

    def write_pulse(self) -> None:
        """Make the file by which the worker says that it is in a call (`worker.PULSE`)."""
        Path(self.options["pulse"]).write_bytes(bytes(_PULSE_BYTES))

    def remove_socket(self) -> None:
        """Remove what a worker that has ended leaves of its socket."""
        with contextlib.suppress(OSError):
            Path(self.options["socket"]).unlink()


class WorkerProcess:
    """A worker that was started; made by `start`.

    Args:
        launch: How it was started.
        process: How it is seen in the runtime's list of workers.
        channel: The other end of what it has as standard input.
        ended: Waits for its end and returns its exit status, or minus a signal's number; None when nobody knows.
        end: Ends it at once; safe when it has ended.
        shares: Whether it was forked from a parent of its version, and not by the fork server.
    """

    def __init__(
        self,
        launch: Launch,
        process: Worker,
        channel: socket.socket,
        ended: asyncio.Future[int | None],
        end: Callable[[], None],
        *,
        shares: bool = False,
    ) -> None:
        self.process = process
        if launch.device is not None:
            self.process = replace(process, device=launch.device.index)
        self.shares = shares
        self.ended = ended
        self._launch = launch
        self._channel = channel
        self._end = end
        self._come = b""
        self._first: dict[str, Any] | None = None
        with Path(launch.options["pulse"]).open("rb") as file:
            self._pulse = mmap.mmap(file.fileno(), _PULSE_BYTES, access=mmap.ACCESS_READ)

    @classmethod
    async def start(cls, launch: Launch, *, remark: str = "") -> WorkerProcess:
        """Start a worker; it is not ready yet.

        Args:
            launch: How.
            remark: What is to be known of it beside how it was started.

        Raises:
            OSError: No process could be started.
        """
        launch.write_pulse()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            with contextlib.ExitStack() as failed:
                failed.callback(ours.close)
                streams = (theirs.fileno(), *(await launch.log.pipes(launch.title, launch.number)))
                try:
                    worker = await cls._started(launch, ours, streams, remark)
                finally:
                    for descriptor in streams[1:]:
                        os.close(descriptor)
                failed.pop_all()
        return worker

    @classmethod
    async def _started(
        cls, launch: Launch, channel: socket.socket, streams: tuple[int, ...], remark: str
    ) -> WorkerProcess:
        reason = _FORKING_OFF
        if launch.fork_socket is not None:
            try:
                connection, line = await _forked(launch.fork_socket, launch, streams)
            except TimeoutError:
                reason = "the fork server does not answer"
            except OSError:
                reason = "no fork server"
            else:
                if line.isdigit():
                    ended = asyncio.create_task(_status(connection), name="worker-ended")
                    return cls(
                        launch, Worker(int(line), "forked", remark), channel, ended, lambda: _hang_up(connection)
                    )
                connection.close()
                reason = line or "the fork server ended"
        process = await asyncio.create_subprocess_exec(
            *plain_command(launch.home, reason, _arguments(launch), overlay=launch.overlay),
            cwd=launch.options["model_dir"],
            env=dict(launch.environment),
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            start_new_session=True,
        )
        ended = asyncio.create_task(_waited(process), name="worker-ended")
        return cls(launch, Worker(process.pid, "plain", reason), channel, ended, lambda: _kill_group(process))

    async def until_ready(self) -> str | None:
        """Return once it can answer, or, in a sentence, why it never will."""
        message = await self.first_message()
        return None if message.get("ready") is True else str(message["failed"])

    async def first_message(self) -> dict[str, Any]:
        """Return what it said first: that it is ready, has failed, or is a parent (`worker.main`)."""
        if self._first is None:
            message = await self.next_message()
            if message is None:
                status = await asyncio.shield(self.ended)
                message = {"failed": f"its worker ended with status {status} while it was loaded"}
            self._first = message
        return self._first

    async def next_message(self) -> dict[str, Any] | None:
        """Return what it says next; None when it has ended."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._come:
            try:
                part = await loop.sock_recv(self._channel, 4096)
            except OSError:
                return None
            if not part or len(self._come) > _CHANNEL_BYTES_MAX:
                return None
            self._come += part
        line, _, self._come = self._come.partition(b"\n")
        document: dict[str, Any] = json.loads(line)
        return document

    def send(self, message: bytes, beside: socket.socket) -> None:
        """Send it a short message with a descriptor.

        Raises:
            OSError: It has ended, or does not read.
        """
        socket.send_fds(self._channel, [message], [beside.fileno()])

    def busy_s(self) -> float:
        """Return for how long it has been in its present call, in seconds; 0 when it is in none."""
        (since,) = memoryview(self._pulse).cast("d")
        return time.monotonic() - since if since else 0.0

    def end(self) -> None:
        """End it; `ended` tells when it has."""
        self._end()

    async def aclose(self) -> None:
        """End it, wait until it has ended, and let go of what belongs to it."""
        self._end()
        await asyncio.wait({self.ended})
        self._channel.close()
        self._pulse.close()


def _arguments(launch: Launch) -> list[str]:
    return [str(_SCRIPT), json.dumps(launch.options)]


async def _forked(fork_socket: Path, launch: Launch, streams: tuple[int, ...]) -> tuple[socket.socket, str]:
    forking = asyncio.ensure_future(asyncio.to_thread(_fork, fork_socket, launch, streams))
    try:
        return await asyncio.shield(forking)
    except asyncio.CancelledError:
        await asyncio.wait({forking})  # the thread goes on: what it has forked must not stay
        if forking.exception() is None:
            forking.result()[0].close()
        raise


def _fork(fork_socket: Path, launch: Launch, streams: tuple[int, ...]) -> tuple[socket.socket, str]:
    """Ask the fork server for a worker; return the connection and the first line of its answer. Blocks."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_FORK_TIMEOUT_S)
        connection.connect(str(fork_socket))
        words = _arguments(launch)
        environment = [f"{name}={value}" for name, value in launch.environment.items()]
        body = os.fsencode("\0".join([launch.options["model_dir"], str(len(words)), *words, *environment]))
        message = len(body).to_bytes(8, "big") + body
        connection.sendall(message[socket.send_fds(connection, [message], list(streams)) :])
        line = b""
        while not line.endswith(b"\n") and (part := connection.recv(256)):
            line += part
    except BaseException:
        connection.close()
        raise
    connection.setblocking(False)
    return connection, clip(line.decode(errors="replace").strip(), 200)


async def _status(connection: socket.socket) -> int | None:
    """Return a forked worker's exit status, which the fork server says unless it was told to end it, or has died."""
    loop = asyncio.get_running_loop()
    text = b""
    with connection, contextlib.suppress(OSError):
        while part := await loop.sock_recv(connection, 256):
            text += part
    return int(text) if text.strip().isdigit() else None


async def _waited(process: asyncio.subprocess.Process) -> int | None:
    return await process.wait()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
