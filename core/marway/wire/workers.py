"""What the runtime says about its worker processes over `runtime.sock`: HTTP with JSON bodies over a Unix socket.

`GET /workers` answers `RuntimeWorkers`; `GET /metrics` the runtime's own Prometheus metrics; `POST /restart` stops
TorchServe and starts it again; `DELETE /leftovers` removes what it left of archives that it could not unpack (none may
be on the way in) and answers `TemporaryRoom`. The sidecar is the only caller, so the socket is for the owner alone
(0600).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from marway.records import Frozen

__all__ = [
    "RUNTIME_SOCKET",
    "DeathReason",
    "Mode",
    "RuntimeWorker",
    "RuntimeWorkers",
    "TemporaryRoom",
    "WorkerDeaths",
    "short_path",
]

RUNTIME_SOCKET: Final = "runtime.sock"
"""Its name in the directory that sidecar and runtime share."""

Mode = Literal["forked", "plain"]

DeathReason = Literal["memory", "killed", "signal", "exit"]
"""How a worker died: the runtime killed it for its memory; somebody else did, nearly always the kernel, out of memory;
another signal, such as SIGSEGV; or it ended itself with a status that is not 0, as when a handler fails to load."""

_SOCKET_PATH_MAX: Final = 107  # sockaddr_un holds 108 bytes with the final zero


class RuntimeWorker(Frozen):
    """One worker process.

    Attributes:
        pid: As TorchServe names it too (`workers[].pid` of its model description).
        server_name: The version's name in TorchServe, once its worker was told to load it.
        mode: `forked` from the process that has torch imported, or `plain`: started as a Python of its own.
        reason: Why it is plain; of a forked one, what there is to know about it, if anything.
        private_bytes: Memory that is this worker's alone, its shim's included.
    """

    pid: int
    server_name: str | None = None
    mode: Mode
    reason: str = ""
    private_bytes: int


class WorkerDeaths(Frozen):
    """How many workers of one version died in one way since the runtime's start.

    Attributes:
        server_name: The version's name in TorchServe; empty for workers that died before they were told.
    """

    server_name: str
    reason: DeathReason
    count: int


class RuntimeWorkers(Frozen):
    """All workers that live, what the rest of the runtime takes (Java, fork server), in bytes, and who died."""

    workers: tuple[RuntimeWorker, ...] = ()
    base_bytes: int = 0
    deaths: tuple[WorkerDeaths, ...] = ()


class TemporaryRoom(Frozen):
    """TorchServe's temporary directory, into which it unpacks archives.

    Attributes:
        directory: Its path, as the runtime sees it.
        free_bytes: What is free on its disk.
        removed: How many half-unpacked archives were removed.
    """

    directory: str
    free_bytes: int
    removed: int = 0


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a path to a Unix socket that is short enough to bind or to connect to, for as long as the context lasts.

    That is ``path`` itself, or, where it is too long, one through a descriptor of its directory (Linux).

    Raises:
        OSError: The directory is not there.
    """
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
