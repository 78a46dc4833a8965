"""What one `marway up` has for itself alone: its home, and ports that are its own before they are listened on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marway.errors import InvalidSettings

__all__ = ["LOOPBACK", "Home", "ReservedPort", "reserve"]

LOOPBACK = "127.0.0.1"


class Home:
    """Paths below one directory.

    ::

        registry/           models, when no other registry is named
        store/              archives, shared by all pods
        tables/             tables of rows, which the gateway has fetched
        java/               Java's archive of TorchServe's classes, shared by all pods
        pods/<pod>/         the directory that a pod's runtime and sidecar share
        examples/<model>/   what training the examples left
        logs/<process>.log
        ready.json          what the ready line said, while it runs
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = root / "registry"
        self.store = root / "store"
        self.tables = root / "tables"
        self.java = root / "java"
        self.ready_file = root / "ready.json"

    def pod(self, name: str) -> Path:
        return self.root / "pods" / name

    def example(self, name: str) -> Path:
        return self.root / "examples" / name

    def log(self, process: str) -> Path:
        return self.root / "logs" / f"{process}.log"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the home for this process alone.

        Raises:
            InvalidSettings: Another `marway up` has it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / "lock").open("a+")
        except OSError as exc:
            raise InvalidSettings(
                f"cannot use {self.root} as home: {exc.strerror}; choose another with --home"
            ) from exc
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                handle.seek(0)
                pid = handle.read().strip() or "unknown"
                raise InvalidSettings(
                    f"{self.root} is in use by another marway up (pid {pid}): stop it, or choose another with --home"
                ) from exc
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            try:
                yield
            finally:
                self.ready_file.unlink(missing_ok=True)

    def write_ready(self, document: dict[str, Any]) -> None:
        """Leave the ready line where the CLI of another terminal finds it."""
        descriptor, name = tempfile.mkstemp(prefix=".ready-", dir=self.root)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(document, handle)
        Path(name).replace(self.ready_file)


class ReservedPort:
    """A port that is bound and not listened on, so that nobody is given it.

    A child that binds it with `SO_REUSEADDR`, as servers do, gets it all the same: the kernel shares an address among
    such sockets until one of them listens. So a child that is started again finds its port free, too.

    Port 0 takes a free one. With ``unshared`` a port that somebody holds as we do is refused.

    Raises:
        InvalidSettings: Somebody listens on it.
    """

    def __init__(self, port: int = 0, *, unshared: bool = False) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if unshared:
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as strict:
                    strict.bind((LOOPBACK, port))
            self._socket.bind((LOOPBACK, port))
        except (OSError, OverflowError) as exc:
            self._socket.close()
            reason = exc.strerror if isinstance(exc, OSError) else "there is no such port"
            raise InvalidSettings(
                f"port {port} cannot be used: {reason}; choose another with --port, or --port 0 for free ones"
            ) from exc
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()


def reserve(first: int, count: int) -> list[ReservedPort]:
    """Return ``count`` reserved ports from ``first`` on, or free ones in a row when ``first`` is 0.

    Raises:
        InvalidSettings: One of them is taken.
    """
    for attempt in range(100):
        ports: list[ReservedPort] = []
        try:
            ports.append(ReservedPort(first))
            while len(ports) < count:
                ports.append(ReservedPort(ports[-1].number + 1, unshared=first == 0))
            return ports
        except InvalidSettings:
            for port in ports:
                port.close()
            if first != 0 or attempt == 99:
                raise
    raise AssertionError("unreachable")
