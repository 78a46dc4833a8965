"""What runs in a worker: loads the handler with TorchServe's Python side, then answers calls over a Unix socket.

One thread does all of it, and a handler runs in it as it does in TorchServe's own worker. Between two calls everything
that has come is read, so that a call that was given up before it began is never made. While a handler runs nothing is
read: what comes waits in the socket, and its sender with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mmap
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import ts
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory

from marway.archives.handler_failure import handler_failure
from marway.archives.rules import Calling
from marway.process.allocator import keep_freed_memory
from marway.wire.envelope import Answer, Row, answer_pieces, read_rows
from marway_http.frames import HEADER, Kind, frame_header
from marway_runtime.engines.native.parent import Before, Parent
from marway_runtime.worker.field_reader import FieldReader
from marway_runtime.worker.service import MarwayService, within

__all__ = ["ANSWER_BYTES_MAX", "PULSE", "Calls", "Connection", "main", "send_answers"]

logger = logging.getLogger(__name__)

PULSE: Final = struct.Struct("d")
"""What a worker keeps in its pulse file: since when it is in a call, on the monotonic clock of the machine; 0 for in
none. It is memory that the runtime maps too, so it is true also of a worker that does nothing but hang."""

_JOINED_BYTES: Final = 64 * 1024
"""Up to here an answer is joined and sent at once; from here on its values are sent as they lie."""
_LARGE_BYTES: Final = 1024 * 1024
_RETAINED_BYTES: Final = 64 * 1024 * 1024
"""Freed memory that a worker does not give back once it has had a large value: room for that, its input and answer."""
ANSWER_BYTES_MAX: Final = 2**32 - 64 * 1024
"""A frame says its size in four bytes."""


def main() -> None:
    """Be a worker: `sys.argv` has one more word, a JSON object (`worker_process.start`)."""
    options: dict[str, Any] = json.loads(sys.argv.pop())
    channel = _channel_to_parent()
    loop = None
    if Calling(*options["calling"]).way == "async":
        # The handler may make things that belong to a loop while it is loaded: it has to be the one that runs later.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    before = Before() if options.get("parent") else None
    try:
        with before.watching_seeds() if before is not None else contextlib.nullcontext():
            service = _loaded(options)
    except BaseException as exc:  # a handler may end its process, too
        reason = handler_failure(exc, options["model_dir"], options["handler"])
        channel.sendall(json.dumps({"failed": reason}).encode() + b"\n")
        sys.exit(1)
    ready: dict[str, Any] = {"ready": True}
    if before is not None:
        why_not = before.why_not_forked()
        if why_not is None:
            parent = Parent(channel, options["server_name"], seeded=before.seeded)
            channel.sendall(json.dumps({"parent_bytes": parent.size_bytes}).encode() + b"\n")
            told, channel = parent.serve()
            options.update(told)
        else:
            ready["alone"] = f"its weights are its own: {why_not}"
    with _listening(Path(options["socket"])) as listener:
        channel.sendall(json.dumps(ready).encode() + b"\n")
        _serve(service, listener, options, loop)


def _serve(
    service: MarwayService, listener: socket.socket, options: dict[str, Any], loop: asyncio.AbstractEventLoop | None
) -> None:
    """Answer calls in the way that the archive asks for, until the process ends."""
    pulse, (way, at_once) = Path(options["pulse"]), options["calling"]
    if loop is not None:
        from marway_runtime.engines.native.async_calls import AsyncCalls

        asyncio.set_event_loop(loop)  # `asyncio.run` in the handler would have taken it away
        loop.run_until_complete(AsyncCalls(service, pulse, answer_within_s=options["answer_within_s"]).serve(listener))
    elif way == "continuous":
        from marway_runtime.engines.native.continuous_calls import ContinuousCalls

        ContinuousCalls(service, listener, pulse, at_once=at_once).serve()
    else:
        Calls(service, listener, pulse).serve()


def _channel_to_parent() -> socket.socket:
    """Return the socket that came as standard input; in its place a handler finds nothing to read."""
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return channel


def _loaded(options: dict[str, Any]) -> MarwayService:
    """Load the handler as TorchServe's worker does when it is told to."""
    metrics = MetricsCacheYamlImpl(options["metrics_config"] or str(Path(ts.__file__).parent / "configs/metrics.yaml"))
    metrics.initialize_cache()
    metrics.model_name = options["server_name"]
    service: MarwayService = ModelLoaderFactory.get_model_loader().load(
        options["server_name"],
        options["model_dir"],
        options["handler"],
        options["gpu"],
        1,
        options["service_envelope"],
        True,
        metrics,
    )
    service.set_cl_socket(None)
    return service


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """Yield a socket that listens at ``path``, for the owner alone, and is there only once it does."""
    unready = path.with_name(f".{path.name}-{os.getpid()}")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            # A socket's path has 107 bytes; through a descriptor any directory's is short (Linux).
            short = f"/proc/self/fd/{directory}/{unready.name}" if sys.platform == "linux" else str(unready)
            listener.bind(short)
            unready.chmod(0o600)
            listener.listen(16)
            unready.replace(path)
            yield listener
        finally:
            os.close(directory)
            unready.unlink(missing_ok=True)


class Connection:
    """A sidecar's connection: frames in, frames out."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.reader = FieldReader(accepted)

    def frame(self) -> tuple[int, int, list[Row]]:
        """Return the next frame: kind, number and, of a request, its rows. Waits for what is missing of it.

        Raises:
            SystemExit: The connection was closed.
            ValueError: It is no frame, or its rows are none.
        """
        size, number, _, _, kind = HEADER.unpack(self.reader.take(HEADER.size))
        if size >= _LARGE_BYTES:
            keep_freed_memory(_RETAINED_BYTES)
        if kind == Kind.REQUEST:
            return kind, number, read_rows(self.reader.take, size)
        self.reader.take(size)
        return kind, number, []

    def send(self, kind: int, number: int, answers: Sequence[Answer]) -> None:
        """Send answers, and wait until the system has taken them all.

        Raises:
            OSError: The connection is closed.
        """
        pieces = answer_pieces(answers)
        size = sum(map(len, pieces))
        header = frame_header(kind, number, body=size)
        if size <= _JOINED_BYTES:
            self.socket.sendall(b"".join((header, *pieces)))
            return
        self.socket.sendall(b"".join((header, *pieces[: -len(answers)])))
        for value in pieces[-len(answers) :]:
            self.socket.sendall(value)


class Calls:
    """Takes calls from whoever connects, and answers one after the other.

    Args:
        service: Has the handler.
        listener: Where the sidecar connects; a new one may while the last is not gone yet.
        pulse: The file of `PULSE`, which is there.
    """

    def __init__(self, service: MarwayService, listener: socket.socket, pulse: Path) -> None:
        self._service = service
        self._listener = listener
        self._listening = listener.fileno()
        self._connections: dict[int, Connection] = {}
        self.waiting: deque[tuple[Connection, int, list[Row]]] = deque()
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        with pulse.open("r+b") as file:
            self._pulse = mmap.mmap(file.fileno(), PULSE.size)

    def serve(self) -> None:
        """Serve until the process ends."""
        while True:
            self.look(wait=not self.waiting)
            if self.waiting:
                self._answer(*self.waiting.popleft())

    def look(self, *, wait: bool) -> None:
        """Take in what has come; if nothing has, ``wait`` for it."""
        for descriptor, _ in self._poll.poll(None if wait else 0):
            if descriptor == self._listening:
                self._accept()
            else:
                self._read(descriptor)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        with contextlib.suppress(OSError):  # who has gone already is seen when it is read from
            accepted.sendall(frame_header(Kind.WINDOW_UPDATE, 0))
        self._connections[accepted.fileno()] = Connection(accepted)
        self._poll.register(accepted, select.POLLIN)

    def _read(self, descriptor: int) -> None:
        """Take what has come over a connection."""
        connection = self._connections[descriptor]
        try:
            while True:
                kind, number, rows = connection.frame()
                if kind == Kind.REQUEST and rows:
                    self.waiting.append((connection, number, rows))
                elif kind == Kind.CANCEL:
                    self.drop(connection, number)
                if not connection.reader.ahead:
                    return
        except (SystemExit, OSError):
            pass
        except ValueError as exc:
            logger.error("What came is no call, and its connection is closed: %s", exc)
        self._poll.unregister(descriptor)
        del self._connections[descriptor]
        self.drop(connection, None)
        connection.socket.close()

    def drop(self, connection: Connection, number: int | None) -> None:
        """Forget a call that has not begun, or all of a connection."""
        self.waiting = deque(
            call for call in self.waiting if call[0] is not connection or number not in (None, call[1])
        )

    def _answer(self, connection: Connection, number: int, rows: list[Row]) -> None:
        def send(piece: Answer) -> None:
            self.beat(0.0)  # who reads slowly is no reason to end a worker
            send_answers(connection, Kind.PART, number, [piece])
            self.beat(time.monotonic())

        self.beat(time.monotonic())
        try:
            answers = self._service.answered(rows, send)
        finally:
            self.beat(0.0)
        send_answers(connection, Kind.ANSWER, number, answers)

    def beat(self, since: float) -> None:
        """Say since when the worker is in a call, on the monotonic clock; 0 for in none."""
        PULSE.pack_into(self._pulse, 0, since)


def send_answers(connection: Connection, kind: int, number: int, answers: Sequence[Answer]) -> None:
    """Send answers; whoever has gone is not told."""
    with contextlib.suppress(OSError):
        connection.send(kind, number, within(answers, ANSWER_BYTES_MAX))
