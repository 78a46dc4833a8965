"""What the runtime tells the sidecar: `runtime.json` in the directory that they share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from marway.records import Frozen

__all__ = ["LOGS", "RUNTIME_FILE", "Addresses", "RuntimeInfo", "read_runtime_info", "write_runtime_info"]

RUNTIME_FILE = "runtime.json"
LOGS = "logs"
"""Below the shared directory: `models.log` holds what handlers print, `torchserve.log` what the server says."""


class Addresses(Frozen):
    """Where one TorchServe answers: URLs for REST, `host:port` for gRPC."""

    inference: str
    management: str
    metrics: str
    grpc_inference: str
    grpc_management: str


class RuntimeInfo(Frozen):
    """One running TorchServe. The file is there only while it answers.

    Attributes:
        boot_id: New with every start; what was registered under another one is gone.
        envelope: Version of the envelope that its workers understand.
        max_request_bytes: Largest request that does not kill a worker.
        memory_limit_bytes: What TorchServe and its workers may take together.
        cpus: Processors that its workers may use; None when that is not known.
        versions: Of `marway`, `torchserve`, `torch`, `python` and `java`.
        control_socket: Whether `runtime.sock` is served beside this file (`marway.wire.workers`).
    """

    format: int = 1
    boot_id: str
    pid: int
    addresses: Addresses
    model_store: Path
    envelope: int
    max_request_bytes: int
    memory_limit_bytes: int
    versions: dict[str, str]
    control_socket: bool = False
    cpus: int | None = None


def write_runtime_info(directory: Path, info: RuntimeInfo) -> None:
    """Write `runtime.json` for the owner's eyes only; a reader sees the old one or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{RUNTIME_FILE}-", dir=directory)
    with os.fdopen(descriptor, "w") as handle:  # mkstemp makes it 0600
        handle.write(info.model_dump_json(indent=1))
    Path(name).replace(directory / RUNTIME_FILE)


def read_runtime_info(directory: Path) -> RuntimeInfo | None:
    """Return what `runtime.json` says, or None when there is none: no TorchServe is up.

    Raises:
        ValueError: The file is not one of ours.
    """
    try:
        data = (directory / RUNTIME_FILE).read_bytes()
    except FileNotFoundError:
        return None
    return RuntimeInfo.model_validate_json(data)
