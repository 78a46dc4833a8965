"""Processes that duties start: what they are called with, and what a person is told when one of them fails."""

from __future__ import annotations

import sys
from typing import Final

from marway.errors import clip

__all__ = ["command_of", "reason_in"]

_REASON_MAX: Final = 300


def command_of(module: str, *words: str, registry: str, observations: str | None, disk_bytes: int) -> list[str]:
    """Return what starts a module of `marway_observations` that reads what is kept of predictions.

    Args:
        module: Its name.
        words: What it is asked.
        registry: URL of the registry.
        observations: URL of the store with observations and feedback; None means the registry's.
        disk_bytes: What copies of files in S3 may take, and what DuckDB puts on disk, each.
    """
    command = [sys.executable, "-m", module, *words, "--registry", registry, "--disk-bytes", str(disk_bytes)]
    return command if observations is None else [*command, "--observations", observations]


def reason_in(words: bytes) -> str:
    """Return the last line that a process wrote, to follow a message; nothing where it wrote none."""
    last = words.decode(errors="replace").strip().rpartition("\n")[2]
    return f": {clip(' '.join(last.split()), _REASON_MAX)}" if last else ""
