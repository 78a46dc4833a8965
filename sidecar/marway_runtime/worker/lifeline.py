"""A worker must not outlive the TorchServe that started it, however that one dies."""

from __future__ import annotations

import os
import select
import threading

__all__ = ["die_with_parent"]


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

    def watch() -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll()
        os._exit(1)

    threading.Thread(target=watch, name="marway-lifeline", daemon=True).start()
