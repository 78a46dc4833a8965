"""What the runtime tells the sidecar: `runtime.json` in the directory that they share, and `runtime.sock` beside it.

The socket speaks HTTP with JSON bodies. `GET /workers` answers `RuntimeWorkers`; `GET /metrics` the runtime's own
Prometheus metrics; `POST /restart` stops TorchServe and starts it again; `DELETE /leftovers` removes what it left of
archives that it could not unpack (none may be on the way in) and answers `TemporaryRoom`; what it does for environments
is in `marway.wire.environments`. The sidecar is the only
caller, so the socket is for the owner alone (0600).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from marway.stored import Frozen

__all__ = [
    "LOGS",
    "RUNTIME_FILE",
    "RUNTIME_SOCKET",
    "DeathReason",
    "DeviceMemory",
    "KeptWeights",
    "Mode",
    "RuntimeInfo",
    "RuntimeWorker",
    "RuntimeWorkers",
    "TemporaryRoom",
    "WorkerDeaths",
    "read_runtime_info",
    "short_path",
    "write_runtime_info",
]

RUNTIME_FILE: Final = "runtime.json"
LOGS: Final = "logs"
"""Below the shared directory: `models.log` holds what handlers print, `torchserve.log` what the server says."""
RUNTIME_SOCKET: Final = "runtime.sock"
"""Its name in the directory that sidecar and runtime share."""

Mode = Literal["forked", "plain"]

DeathReason = Literal["memory", "killed", "signal", "exit"]
"""How a worker died: the runtime killed it for its memory; somebody else did, nearly always the kernel, out of memory;
another signal, such as SIGSEGV; or it ended itself with a status that is not 0, as when a handler fails to load."""

_SOCKET_PATH_MAX: Final = 107  # sockaddr_un holds 108 bytes with the final zero


class RuntimeInfo(Frozen):
    """One running model server. The file is there only while it answers.

    Attributes:
        engine: Which model server it is: the name of the backend that speaks to it.
        boot_id: New with every start; what was registered under another one is gone.
        addresses: Where it answers, under the engine's own names: URLs for REST, `host:port` for gRPC.
        envelope: Version of the envelope that its workers understand; 0 for none.
        max_request_bytes: Largest request that does not kill a worker.
        memory_limit_bytes: What it and its workers may take together; None when that is not known.
        cpus: Processors that its workers may use; None when that is not known.
        versions: Of `marway`, the engine under its name, `torch`, `python` and whatever else matters, such as `java`.
        control_socket: Whether `runtime.sock` is served beside this file.
        environments_for: The `marway.environments.lock.Target` that it builds environments for; None for none.
    """

    format: int = 1
    engine: str = "torchserve"
    boot_id: str
    pid: int
    addresses: Mapping[str, str] = {}
    model_store: Path
    envelope: int
    max_request_bytes: int
    memory_limit_bytes: int | None
    versions: dict[str, str]
    control_socket: bool = False
    cpus: int | None = None
    environments_for: str | None = None


def write_runtime_info(directory: Path, info: RuntimeInfo) -> None:
    """Write `runtime.json` for the owner's eyes only; a reader sees the old one or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{RUNTIME_FILE}-", dir=directory)
    with os.fdopen(descriptor, "w") as handle:  # mkstemp makes it 0600
        handle.write(info.model_dump_json(indent=1))
    Path(name).replace(directory / RUNTIME_FILE)


def read_runtime_info(directory: Path) -> RuntimeInfo | None:
    """Return what `runtime.json` says, or None when there is none: no model server is up.

    Raises:
        ValueError: The file is not one of ours.
    """
    try:
        data = (directory / RUNTIME_FILE).read_bytes()
    except FileNotFoundError:
        return None
    return RuntimeInfo.model_validate_json(data)


class RuntimeWorker(Frozen):
    """One worker process.

    Attributes:
        pid: As TorchServe names it too (`workers[].pid` of its model description).
        server_name: The version's name in TorchServe, once its worker was told to load it.
        mode: `forked` from the process that has torch imported, or `plain`: started as a Python of its own.
        reason: Why it is plain; of a forked one, what there is to know about it, if anything.
        private_bytes: Memory that is this worker's alone, its shim's included.
        copied_bytes: Of that, what it shared with its version's other workers until it wrote to it.
        device: The device that it was given, by its number in the pod; None for none, or when that is not known.
        device_bytes: Memory that it has there; None when that is not known.
    """

    pid: int
    server_name: str | None = None
    mode: Mode
    reason: str = ""
    private_bytes: int
    copied_bytes: int = 0
    device: int | None = None
    device_bytes: int | None = None


class KeptWeights(Frozen):
    """A process that has loaded a version and answers nothing itself: the version's workers are forked from it.

    Attributes:
        pid: The process.
        server_name: The version, by its name in the runtime.
        size_bytes: Memory that it and the workers share: that is there once, however many workers there are.
        workers: How many there are; with none the version is parked.
    """

    pid: int
    server_name: str
    size_bytes: int
    workers: int


class DeviceMemory(Frozen):
    """One of the GPUs that a pod's workers may use.

    Attributes:
        index: Its number in the pod, from 0.
        name: What the driver calls it; empty when that is not known.
        total_bytes, used_bytes: Its memory, and what of it is in use by whomever; None when that is not known.
        workers: How many of the pod's workers were given it.
    """

    index: int
    name: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None
    workers: int = 0

    @property
    def free_bytes(self) -> int | None:
        """Memory that nobody uses; None when that is not known."""
        if self.total_bytes is None or self.used_bytes is None:
            return None
        return max(0, self.total_bytes - self.used_bytes)


class WorkerDeaths(Frozen):
    """How many workers of one version died in one way since the runtime's start."""

    server_name: str
    """The version's name in TorchServe; empty for workers that died before they were told."""
    reason: DeathReason
    count: int


class RuntimeWorkers(Frozen):
    """All workers that live, the weights that some share, the devices, and who died.

    `base_bytes` is what the rest of the runtime takes (Java, fork server).
    """

    workers: tuple[RuntimeWorker, ...] = ()
    weights: tuple[KeptWeights, ...] = ()
    devices: tuple[DeviceMemory, ...] = ()
    base_bytes: int = 0
    deaths: tuple[WorkerDeaths, ...] = ()


class TemporaryRoom(Frozen):
    """TorchServe's temporary directory, into which it unpacks archives, as the runtime sees it."""

    directory: str
    free_bytes: int
    removed: int = 0
    """How many half-unpacked archives were removed."""


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
