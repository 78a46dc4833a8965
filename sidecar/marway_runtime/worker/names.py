"""Where each worker writes which model it was told to load, and where the runtime reads it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["folder", "write_name"]


def folder(temporary: Path) -> Path:
    """Return the folder in TorchServe's temporary directory: a file for each worker, named by its pid."""
    return temporary / "workers"


def write_name(server_name: str) -> None:
    """Write, from within a worker, the name of its model in TorchServe; a worker that cannot still serves."""
    with contextlib.suppress(OSError):
        (folder(Path(os.environ["TMPDIR"])) / str(os.getpid())).write_text(server_name)
