"""Ends what a run of tests has left, however that run ended.

A process of pytest that is killed, or whose pytest-xdist is, runs no fixture to its end. This script hangs on a pipe
that only that process holds: when the pipe closes, it kills all processes with that run's directory on their command
line, as all that tests start has.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["reaped"]


@contextlib.contextmanager
def reaped(directory: Path) -> Iterator[None]:
    """Have whatever has this directory on its command line killed when this process is gone, or the block is left."""
    command = [sys.executable, str(Path(__file__).resolve()), f"{directory}/"]
    # In a session of its own: Ctrl-C must not reach it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def _reap(marker: str) -> None:
    while left := [each for each in psutil.process_iter() if _is_of(each, marker)]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)


def _is_of(process: psutil.Process, marker: str) -> bool:
    try:
        return process.pid != psutil.Process().pid and marker in "\0".join(process.cmdline())
    except psutil.Error:
        return False


if __name__ == "__main__":
    sys.stdin.buffer.read()
    _reap(sys.argv[1])
