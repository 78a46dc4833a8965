"""How much memory there is for TorchServe and its workers, and how much of it Java may take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from marway_runtime.settings import RuntimeSettings

__all__ = ["cgroup_limit", "heap_bytes", "memory_limit"]

_MIB = 1024 * 1024


def memory_limit(settings: RuntimeSettings) -> int:
    """Return how much memory TorchServe and its workers may take, in bytes."""
    if settings.memory_limit_bytes is not None:
        return settings.memory_limit_bytes
    total = int(psutil.virtual_memory().total)
    limit = cgroup_limit()
    return total if limit is None else min(total, limit)


def heap_bytes(settings: RuntimeSettings) -> int:
    """Return the limit of Java's heap, in bytes."""
    if settings.heap_bytes is not None:
        return settings.heap_bytes
    return max(256 * _MIB, min(1024 * _MIB, memory_limit(settings) // 8))


def cgroup_limit(*, proc: Path = Path("/proc"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the smallest memory limit of this process's cgroup and those around it, in bytes; None when none is set.

    Version 2 of the interface has one tree; version 1 one for each controller, here `memory` (cgroups(7)). A container
    may see its own cgroup as the root of the tree while `/proc` still names the path that the host sees.
    """
    limits = []
    for file in _limit_files(proc, mounted):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits, default=None)


def _limit_files(proc: Path, mounted: Path) -> Iterator[Path]:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    v1, v2 = mounted / "memory", mounted
    paths = {v1: PurePosixPath("/"), v2: PurePosixPath("/")}
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            paths[v2] = PurePosixPath(path)
        elif "memory" in controllers.split(","):
            paths[v1] = PurePosixPath(path)
    for root, name in ((v2, "memory.max"), (v1, "memory.limit_in_bytes")):
        for folder in (paths[root], *paths[root].parents):
            yield root / folder.relative_to("/") / name
