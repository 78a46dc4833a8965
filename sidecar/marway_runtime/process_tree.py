"""The processes below a process, as Linux tells them, and how none of them outlives the TorchServe above it.

Standard library only, for the fork server uses it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

__all__ = [
    "adopt_orphans",
    "children_of",
    "die_first",
    "die_with",
    "die_with_parent",
    "kill_below",
    "reap_strangers",
]

_PR_SET_CHILD_SUBREAPER = 36
_FORK_SERVER_S: Final = 1.0
"""How long the fork server has to kill a worker whose shim has ended; it takes milliseconds."""


def adopt_orphans() -> None:
    """Have processes below this one that lose their parent become its children, and not those of process 1.

    So nothing below it can get away, neither by a session of its own nor by a second fork. What is forked does not
    inherit this. Where the kernel has no such thing (macOS), nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """Return the children of a process, those among them that have ended and are not reaped; none when it is gone."""
    children: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                children += map(int, (thread / "children").read_text().split())
    except OSError:
        return []
    return children


def kill_below(pid: int) -> None:
    """Kill all processes below one that adopts orphans: looked for until none is found that was not killed before."""
    killed: set[int] = set()
    while found := _below(pid) - killed:
        for each in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        killed |= found


def _below(pid: int) -> set[int]:
    found: set[int] = set()
    to_look = [pid]
    while to_look:
        new = [each for each in children_of(to_look.pop()) if each not in found]
        found.update(new)
        to_look += new
    return found


def reap_strangers(ours: Collection[int]) -> None:
    """Reap ended processes that were left to this one: in a container it is the first, and so everybody's parent.

    Children that somebody here waits for (``ours``) are left alone.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in ours:
                return  # reaped by its own waiter; the others get their turn
            os.waitpid(ended.si_pid, 0)


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

    def end_with(timeout_ms: int | None) -> None:
        if not poller.poll(timeout_ms):
            return
        if group:
            time.sleep(_FORK_SERVER_S)
        kill_below(os.getpid())
        if group:
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    end_with(0)
    threading.Thread(target=end_with, args=(None,), name="marway-lifeline", daemon=True).start()
