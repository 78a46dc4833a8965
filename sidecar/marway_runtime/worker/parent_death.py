"""A worker must not outlive the TorchServe that started it, however that one dies."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from marway_runtime.process_tree import kill_below

__all__ = ["die_first", "die_with", "die_with_parent"]

_FORK_SERVER_S: Final = 1.0
"""How long the fork server has to kill a worker whose shim has ended; it takes milliseconds."""


def die_first() -> None:
    """Have the kernel end this process before others when memory is short; only Linux has such a thing."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def die_with_parent() -> None:
    """End this process at once when its parent has ended.

    A worker notices a lost connection by itself, but not while it loads a model or waits for its first connection.
    The kernel's parent-death signal would not do: it follows the Java *thread* that started the worker.
    """
    if not hasattr(os, "pidfd_open"):
        return  # macOS: TorchServe's own checks remain
    parent = os.getppid()
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    if os.getppid() != parent:
        os._exit(1)
    die_with([descriptor])


def die_with(descriptors: Sequence[int], *, group: bool = False) -> None:
    """End this process, and all below it, when one of these ends: a pidfd's process, or a connection's other side.

    Args:
        descriptors: What to watch; nothing else may read from them.
        group: End the process group that this process leads, with whatever it started. Such a process is a fork; the
            fork server sees the same and kills it sooner, unless it is gone, and can tell that from a worker's death.
    """
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)

    def end() -> None:
        if group:
            time.sleep(_FORK_SERVER_S)
        kill_below(os.getpid())
        if group:
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def watch() -> None:
        poller.poll()
        end()

    if poller.poll(0):
        end()
    threading.Thread(target=watch, name="marway-lifeline", daemon=True).start()
