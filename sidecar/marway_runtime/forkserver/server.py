"""The fork server's loop: takes requests, forks workers, tells shims how their workers ended.

One thread, and nothing but the standard library: what runs here must not disturb what a forked worker finds.

What a handler starts ends with its worker, also in a session of its own: a worker adopts the orphans below it, and when
it ends, all of them become children of the fork server, which knows its workers and kills what else it has.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marway_runtime.process_tree import adopt_orphans, children_of
from marway_runtime.worker.names import folder

__all__ = ["Forked", "Request", "Server"]

_REQUEST_TIMEOUT_S = 5.0
_LENGTH_BYTES = 8
_MAX_BYTES = 16 * 1024 * 1024  # Linux allows a process far less
_MAX_DESCRIPTORS = 8
_STREAMS = 3
_GONE = select.POLLHUP | select.POLLERR | select.POLLIN | getattr(select, "POLLRDHUP", 0)


@dataclass(frozen=True, slots=True)
class Request:
    """What a shim asks for: a worker with these arguments, whole environment, working directory and streams."""

    arguments: Sequence[str]
    """The script to run first."""
    environment: Mapping[str, str]
    cwd: str
    descriptors: Sequence[int]
    """Standard input, output and error, then a pidfd of TorchServe where the kernel has them."""

    def close(self) -> None:
        """Close the descriptors that came with it."""
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Forked:
    """What a forked child finds: its request, and the connection that ends when its shim does."""

    request: Request
    connection: socket.socket


@dataclass(eq=False, slots=True)
class _Worker:
    pid: int
    connection: socket.socket
    """To its shim."""
    name: Path
    """The file that says what it serves."""
    ended: bool = False
    """Whether it is killed because TorchServe ended its shim: it has not died."""


class Server:
    """Serves shims on a Unix socket until SIGTERM.

    Args:
        path: Where to listen; the socket is there, for the owner alone, once it is served.
        deaths: A descriptor to which it writes a line `PID STATUS NAME` for each worker that ends by itself and not
            well, with its exit status, or minus the signal's number, and what it served. Whoever does not read misses
            some: it never waits.
    """

    def __init__(self, path: Path, *, deaths: int) -> None:
        os.set_blocking(deaths, False)
        self._deaths = deaths
        self._listener = _listen(path)
        self._poll = select.poll()
        self._workers: dict[int, _Worker] = {}  # by pid
        self._shims: dict[int, _Worker] = {}  # by the descriptor of the connection
        self._stopping = False
        self._wake, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> Forked | None:
        """Serve; return None after SIGTERM, when all workers are gone, and in each forked child what it is to do."""
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        while not self._stopping:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._wake:
                    self._drain_wakeups()
                    self._reap()
                elif descriptor == self._listener.fileno():
                    forked = self._accept()
                    if forked is not None:
                        return forked
                elif descriptor in self._shims:
                    self._shim_gone(descriptor)
        for pid in self._workers:
            _kill(pid)
        for pid in self._workers:
            os.waitpid(pid, 0)
        self._workers.clear()
        while self._end_orphans():
            os.waitpid(-1, 0)  # and then there may be what it had started
        return None

    def _accept(self) -> Forked | None:
        connection, _ = self._listener.accept()
        connection.settimeout(_REQUEST_TIMEOUT_S)
        try:
            request = _receive(connection)
        except (ValueError, OSError) as exc:
            _say(f"a request was not understood: {exc}")
            connection.close()
            return None
        if _ended(connection):  # a shim that lost patience, or was killed: nobody waits for this worker
            request.close()  # above all its streams: they are a plain worker's by now
            connection.close()
            return None
        try:
            pid = os.fork()
        except OSError as exc:
            _say(f"cannot fork: {exc}")
            with contextlib.suppress(OSError):
                connection.sendall(b"the fork failed\n")
            request.close()
            connection.close()
            return None
        if pid == 0:
            self._leave_to_parent()
            return Forked(request, connection)
        request.close()
        name = folder(Path(request.environment.get("TMPDIR", "/"))) / str(pid)
        self._workers[pid] = self._shims[connection.fileno()] = _Worker(pid, connection, name)
        self._poll.register(connection, _GONE)
        with contextlib.suppress(OSError):  # its end is seen by the poll
            connection.sendall(b"%d\n" % pid)
        return None

    def _shim_gone(self, descriptor: int) -> None:
        # TorchServe killed it, or died: the worker, unreaped and so still the owner of its pid, goes too. TorchServe
        # also ends the shim of a worker whose connection it has lost, and that worker may be dying by itself.
        self._poll.unregister(descriptor)
        worker = self._shims.pop(descriptor)
        worker.ended = not _dying(worker.pid)
        _kill(worker.pid)

    def _reap(self) -> None:
        for pid, worker in list(self._workers.items()):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            _kill(pid)  # what it started, while its pid is still its own
            name = ""  # it was told nothing yet
            with contextlib.suppress(OSError):
                name = worker.name.read_text()  # the file goes once the process is reaped
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            del self._workers[pid]
            if status != 0 and not (status == -signal.SIGKILL and worker.ended):
                with contextlib.suppress(OSError):
                    os.write(self._deaths, f"{pid} {status} {name}\n".encode())
            if self._shims.pop(worker.connection.fileno(), None) is not None:
                self._poll.unregister(worker.connection)
                with contextlib.suppress(OSError):
                    worker.connection.sendall(b"%d\n" % (status if status >= 0 else 128 - status))
            worker.connection.close()
        self._end_orphans()

    def _end_orphans(self) -> bool:
        """Kill what workers that have ended leave behind, and reap it; return whether some of it still lives.

        Each that ends tells of itself, and then its own children are here.
        """
        living = False
        for pid in children_of(os.getpid()):
            if pid in self._workers:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                living = os.waitpid(pid, os.WNOHANG)[0] == 0 or living
        return living

    def _leave_to_parent(self) -> None:
        """Close, in the child, what is the fork server's: a shim's connection must end with its own worker."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._listener.close()
        for worker in self._workers.values():
            worker.connection.close()
        for descriptor in (self._wake, self._wakeup, self._deaths):
            os.close(descriptor)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 4096):
                pass


def _receive(connection: socket.socket) -> Request:
    """Read one request.

    Raises:
        ValueError: It is none.
        OSError: The connection broke or timed out.
    """
    first, descriptors, _, _ = socket.recv_fds(connection, 65536, _MAX_DESCRIPTORS)
    try:
        length = int.from_bytes(first[:_LENGTH_BYTES], "big")
        if len(first) < _LENGTH_BYTES or length > _MAX_BYTES or len(descriptors) < _STREAMS:
            raise ValueError("not a request for a worker")
        body = bytearray(first[_LENGTH_BYTES:])
        while len(body) < length:
            part = connection.recv(length - len(body))
            if not part:
                raise ValueError("the request ends early")
            body += part
        cwd, count, *rest = os.fsdecode(bytes(body)).split("\0")
        arguments, environment = rest[: int(count)], rest[int(count) :]
        pairs = (pair.partition("=") for pair in environment)
        return Request(arguments, {name: value for name, _, value in pairs}, cwd, descriptors)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unready = path.with_name(path.name + "-")
    unready.unlink(missing_ok=True)
    listener.bind(str(unready))
    unready.chmod(0o600)
    listener.listen(128)
    unready.replace(path)  # only now it can be found, and what an earlier one left is gone
    return listener


def _ended(connection: socket.socket) -> bool:
    poller = select.poll()
    poller.register(connection, _GONE)
    return bool(poller.poll(0))


def _dying(pid: int) -> bool:
    """Return whether a child has ended, or is ending: the kernel takes its memory before it closes its connections."""
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        return True
    try:
        return Path(f"/proc/{pid}/statm").read_text().startswith("0 ")
    except OSError:
        return False  # macOS has no such file


def _kill(pid: int) -> None:
    """Kill a worker and what it started: it leads a process group, unless it has only just been forked."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
