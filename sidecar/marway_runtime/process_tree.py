"""The processes below a process, as Linux tells them; standard library only, for the fork server uses it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection
from pathlib import Path

__all__ = ["adopt_orphans", "children_of", "kill_below", "reap_strangers"]

_PR_SET_CHILD_SUBREAPER = 36


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

    Args:
        ours: Children that somebody here waits for; they are left alone.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in ours:
                return  # reaped by its own waiter; the others get their turn
            os.waitpid(ended.si_pid, 0)
