"""A model server as a process group of its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import httpx
import psutil

__all__ = ["Server", "free_ports"]

START_TIMEOUT_S = 120
_MARK = "TEST_SERVER_DIRECTORY"
"""Variable by which all that a server started is known, also what has a session of its own, as BentoML's workers."""
_LIFELINE = """\
pid=$1; shift
"$@" & echo $! > "$pid.new"; mv "$pid.new" "$pid"
read _
for each in /proc/[0-9]*; do
  [ "$each" != "/proc/$$" ] || continue
  grep -qaz "^TEST_SERVER_DIRECTORY=$TEST_SERVER_DIRECTORY$" "$each/environ" && kill -9 "${each#/proc/}"
done 2> /dev/null
kill -9 0
"""
"""Holds the group: when the pipe to pytest closes, however that ended, all that the server started is killed."""


class Server(ABC):
    """A running model server; used as a context manager it is gone afterwards with all that it started.

    Args:
        directory: Its own, below a test's temporary directory, with what it is to serve.

    Attributes:
        url: Base URL of its REST API.
        grpc: `HOST:PORT` of its gRPC API; "" when it has none.
        management: Base URL by which it is managed; that of predictions where it has no other.
        metrics: URL of its Prometheus metrics; "" when it has none.
        repository: Its model repository or store, as both it and tests see it.
        log: What it wrote.
    """

    grpc: str = ""
    metrics: str = ""
    health: str = "/"
    """Path that is answered with 200 once it serves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ports = free_ports(4)
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.management = self.url
        self.repository = directory
        self.log = directory / "server.log"
        self._group: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return its command line."""

    def variables(self) -> Mapping[str, str]:
        """Return environment variables for it, over those of this process."""
        return {}

    @property
    def pid(self) -> int:
        """The server's own process."""
        return int(self._pid_file.read_text())

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            return _is_there(psutil.Process(self.pid))
        return False

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it, on the same ports as before, and return once it serves.

        Raises:
            AssertionError: It ended, or does not serve within ``timeout_s``; with the end of its log.
        """
        self._pid_file.unlink(missing_ok=True)
        command = ["/bin/sh", "-c", _LIFELINE, "server", str(self._pid_file), *self.command()]
        variables = {**os.environ, **self.variables(), _MARK: str(self.directory)}
        with self.log.open("ab") as log:
            self._group = subprocess.Popen(
                command, cwd=self.directory, env=variables, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while not self.serves():
            died = self._pid_file.exists() and not self.runs
            if died or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{command[5]} does not serve: {self.said()[-3000:]}")
            time.sleep(0.05)

    def serves(self) -> bool:
        """Whether it says that it is ready."""
        try:
            return httpx.get(f"{self.url}{self.health}", timeout=5, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it hard, with all that it started."""
        if self._group is None:
            return
        started = psutil.Process(self._group.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._group.pid, signal.SIGKILL)
        for each in started:  # of a session of its own, if any has one
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        assert self._group.stdin is not None
        self._group.stdin.close()
        self._group.wait(30)
        self._group = None
        deadline = time.monotonic() + 30
        while any(_is_there(each) for each in started):
            assert time.monotonic() < deadline, f"killed and still there: {started}"
            time.sleep(0.01)

    def stop(self, *, timeout_s: float = 30) -> None:
        """Ask it to end, as kubelet would, then end what is left."""
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            process = psutil.Process(self.pid)
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(timeout_s)
        self.kill()

    def said(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def _pid_file(self) -> Path:
        return self.directory / "server.pid"


def _is_there(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has, outside of those that the kernel gives to connections.

    A server that was killed comes back to its port: meanwhile no connection of a client may have got it.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in _in_any_order():
            held = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                held.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                break
    return found


def _in_any_order() -> Iterator[int]:
    low, high = 10_000, 32_000
    while True:
        yield random.randrange(low, high)
