"""Processes below a process are found and ended, also those that went into a session of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from marway_runtime.process_tree import children_of
from support.up import wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the process table is Linux's"),
    pytest.mark.timeout(60),
]

PARENT = """
import os, subprocess, sys
from marway_runtime.process_tree import adopt_orphans, kill_below
adopt_orphans()
second = "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=s.DEVNULL, start_new_session=True).pid)"
orphan = subprocess.run([sys.executable, "-c", second], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
child = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], stdout=subprocess.DEVNULL, start_new_session=True)
print(orphan, child.pid, flush=True)
sys.stdin.readline()
kill_below(os.getpid())
print("done", flush=True)
sys.stdin.readline()
"""


def test_all_below_a_process_is_ended() -> None:
    """A child of a child, and one whose parent has ended, are below the process that adopts them, and end with it."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        orphan, child = map(int, parent.stdout.readline().split())
        assert {orphan, child} <= set(children_of(parent.pid))
        wait_until(lambda: bool(children_of(child)), timeout_s=10, what="the child's child")
        (grandchild,) = children_of(child)
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "done\n"
        wait_until(lambda: all(map(_ended, (orphan, child, grandchild))), timeout_s=10, what="all ended")
        parent.stdin.write("\n")


def test_a_process_that_is_gone_has_no_children() -> None:
    """A process that ended between two looks is no error."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert children_of(done.pid) == []
    assert os.getpid() in children_of(os.getppid())


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
