"""How much memory and how many processors there are for TorchServe and its workers.

Limits are those of this process's cgroups, too (`marway.process.cgroups`).
"""

from __future__ import annotations

import math
import os

import psutil

from marway.process.cgroups import cgroup_cpus, cgroup_room
from marway_runtime.settings import RuntimeSettings

__all__ = ["cpu_count", "heap_bytes", "memory_limit", "worker_memory"]

_MIB = 1024 * 1024


def memory_limit(settings: RuntimeSettings) -> int:
    """Return how much memory TorchServe and its workers may take, in bytes."""
    if settings.memory_limit_bytes is not None:
        return settings.memory_limit_bytes
    total = int(psutil.virtual_memory().total)
    room = cgroup_room()
    return total if room is None else min(total, room.limit_bytes)


def heap_bytes(settings: RuntimeSettings) -> int:
    """Return the limit of Java's heap, in bytes."""
    if settings.heap_bytes is not None:
        return settings.heap_bytes
    return max(256 * _MIB, min(1024 * _MIB, memory_limit(settings) // 8))


def worker_memory(settings: RuntimeSettings) -> int:
    """Return how much memory of its own one worker may take, in bytes."""
    if settings.worker_memory_bytes is not None:
        return settings.worker_memory_bytes
    return memory_limit(settings) * 9 // 10


def cpu_count() -> int:
    """Return how many processors TorchServe and its workers may use: at least 1, parts rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS
    share = cgroup_cpus()
    return count if share is None else max(1, min(count, math.ceil(share)))
