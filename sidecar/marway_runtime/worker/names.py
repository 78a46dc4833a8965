"""What runtime and worker agree on: an environment variable, and the files that say which worker serves which model."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

__all__ = ["MAX_RESPONSE_BYTES_ENV", "folder", "write_name"]

MAX_RESPONSE_BYTES_ENV: Final = "MARWAY_MAX_RESPONSE_BYTES"
"""Environment variable by which the runtime gives `max_response_size`; taken out before a handler runs."""


def folder(temporary: Path) -> Path:
    """Return the folder in TorchServe's temporary directory: a file for each worker, named by its pid."""
    return temporary / "workers"


def write_name(server_name: str) -> None:
    """Write, from within a worker, the name of its model in TorchServe; a worker that cannot still serves."""
    with contextlib.suppress(OSError):
        (folder(Path(os.environ["TMPDIR"])) / str(os.getpid())).write_text(server_name)
