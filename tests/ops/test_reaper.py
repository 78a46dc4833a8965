from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from support.up import wait_until

TESTS = Path(__file__).parents[1]
LEAVES_A_PROCESS = """
import subprocess, sys
from pathlib import Path
from support.reaper import reaped

directory = Path(sys.argv[1])
with reaped(directory):
    left = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", f"{directory}/home"])
    print(left.pid, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_of_tests_leaves_is_ended(tmp_path: Path) -> None:
    """A process that a test started is gone soon after the process of pytest was killed."""
    command = [sys.executable, "-c", LEAVES_A_PROCESS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS) as run:
        assert run.stdout is not None
        left = int(run.stdout.readline())
        assert psutil.pid_exists(left)
        run.kill()
    wait_until(lambda: not psutil.pid_exists(left), timeout_s=60, what="what it left is ended")
