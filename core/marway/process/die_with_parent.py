"""Runs a command that the kernel kills when the process that started it dies.

`python -I -S die_with_parent.py PID COMMAND…`, for programs that know nothing of a lifeline
(`marway.process.stop_request`). `PID` is that process; when it is gone already, nothing is run. Standard library only:
it starts in 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["dies_with_me"]

_PR_SET_PDEATHSIG = 1


def dies_with_me(command: Sequence[str]) -> list[str]:
    """Return the command line that runs ``command`` for as long as this process lives, on Linux."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Bind this process to its parent and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
