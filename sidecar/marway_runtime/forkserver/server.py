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
from dataclasses import dataclass
from pathlib import Path

from marway_runtime.forkserver.request import Request, receive
from marway_runtime.process_tree import adopt_orphans, children_of
from marway_runtime.worker.names import folder

__all__ = ["Forked", "Server"]

_REQUEST_TIMEOUT_S = 5.0
_GONE = select.POLLHUP | select.POLLERR | select.POLLIN | getattr(select, "POLLRDHUP", 0)


@dataclass(frozen=True, slots=True)
class Forked:
    """What a forked child finds: its request, and the connection that ends when its shim does."""

    request: Request
    connection: socket.socket


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
        self._workers: dict[int, socket.socket] = {}  # pid → connection to its shim
        self._ending: set[int] = set()
        """Workers that are killed because TorchServe ended their shims: they have not died."""
        self._names: dict[int, Path] = {}  # pid → the file that says what it serves
        self._shims: dict[int, int] = {}  # descriptor of that connection → pid
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
            request = receive(connection)
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
        self._workers[pid] = connection
        self._names[pid] = folder(Path(request.environment.get("TMPDIR", "/"))) / str(pid)
        self._shims[connection.fileno()] = pid
        self._poll.register(connection, _GONE)
        with contextlib.suppress(OSError):  # its end is seen by the poll
            connection.sendall(b"%d\n" % pid)
        return None

    def _shim_gone(self, descriptor: int) -> None:
        # TorchServe killed it, or died: the worker, unreaped and so still the owner of its pid, goes too. TorchServe
        # also ends the shim of a worker whose connection it has lost, and that worker may be dying by itself.
        self._poll.unregister(descriptor)
        pid = self._shims.pop(descriptor)
        if not _dying(pid):
            self._ending.add(pid)
        _kill(pid)

    def _reap(self) -> None:
        for pid, connection in list(self._workers.items()):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            _kill(pid)  # what it started, while its pid is still its own
            name = self._name_of(pid)  # the file goes once the process is reaped
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            del self._workers[pid]
            if status != 0 and not (status == -signal.SIGKILL and pid in self._ending):
                with contextlib.suppress(OSError):
                    os.write(self._deaths, f"{pid} {status} {name}\n".encode())
            self._ending.discard(pid)
            if self._shims.pop(connection.fileno(), None) is not None:
                self._poll.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(b"%d\n" % (status if status >= 0 else 128 - status))
            connection.close()
        self._end_orphans()

    def _name_of(self, pid: int) -> str:
        try:
            return self._names.pop(pid).read_text()
        except OSError:
            return ""  # it was told nothing yet

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
        for connection in self._workers.values():
            connection.close()
        for descriptor in (self._wake, self._wakeup, self._deaths):
            os.close(descriptor)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 4096):
                pass


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
