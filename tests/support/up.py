"""`marway up` as a test starts it: as a process of its own, in a home of its own, on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

import psutil

START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 20
"""What `marway up` promises."""


class Up:
    """A running `marway up --json`; used as a context manager it is gone afterwards, whatever happened.

    Args:
        home: Its home.
        arguments: More of its command line.
        env: Environment variables, over this process's own.
        prefix: A command that becomes it, such as unshare.
        python: Of the environment that it runs in; this one's.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        python: Path = Path(sys.executable),
    ) -> None:
        self.home = home
        command = [
            *prefix,
            str(python),
            "-m",
            "marway",
            "up",
            "--json",
            "--port",
            "0",
            "--home",
            str(home),
            *arguments,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        self.events: Queue[dict[str, Any]] = Queue()
        self.stderr: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.ready: dict[str, Any] = {}

    @property
    def gateway(self) -> str:
        return str(self.ready["gateway"])

    @property
    def registry(self) -> str:
        return str(self.ready["registry"])

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next event of this kind."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                found = self.events.get(timeout=1.0)
            except Empty:
                assert self.process.poll() is None, f"marway up ended: {''.join(self.stderr)}"
                assert time.monotonic() < deadline, f"no {event} event"
                continue
            if found["event"] == event:
                return found

    def __enter__(self) -> Self:
        try:
            self.ready = self.wait_for("ready")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status; everything is gone within what is promised."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S + 5)

    def end(self) -> None:
        """End it hard with all that it started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S + 5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for leftover in processes_of(self.home):
            leftover.kill()
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.stderr.extend(self.process.stderr)


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the processes that have this home on their command line.

    It is in each one's ``info["cmdline"]``, which can be looked at when the process has ended meanwhile.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        alive = process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and any(str(home) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def wait_until(condition: Any, *, timeout_s: float, what: str) -> None:
    """Wait until ``condition()`` is true.

    Raises:
        AssertionError: It is not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        threading.Event().wait(0.05)
