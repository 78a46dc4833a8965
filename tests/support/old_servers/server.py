"""An old server that runs, and the requests of its clients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["OldServer", "write_requests"]


@dataclass(frozen=True)
class OldServer:
    """One that runs, and what it was started with.

    Attributes:
        source: What `marway adopt` is given.
        url: Where it answers.
        requests: A file of its clients' requests.
        arguments: More for `marway adopt`.
        environment: More variables for it.
    """

    source: Path
    url: str
    requests: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def write_requests(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write a file of requests and return it."""
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path
