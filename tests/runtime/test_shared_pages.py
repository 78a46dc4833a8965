"""What a fork shares with its parent, and what it has copied."""

from __future__ import annotations

import os
import subprocess
import sys

from marway_runtime.shared_pages import areas, copied_bytes, private_bytes

MIB = 1 << 20
FORKS = """
import mmap, os, sys
held = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.write(b"x" * (64 << 20))
if (pid := os.fork()) == 0:
    held[: 8 << 20] = b"y" * (8 << 20)
    own = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    own.write(b"z" * (16 << 20))
    print(os.getppid(), os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_copies_are_told_from_what_is_new() -> None:
    """Of a fork that wrote to 8 MiB of what it shared and took 16 MiB for itself, 8 MiB are copies."""
    with subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        parent, child = map(int, process.stdout.readline().split())
        copied, private = copied_bytes(child, areas(parent)), private_bytes(child)
        process.stdin.close()
    assert 8 * MIB <= copied < 16 * MIB
    assert 24 * MIB <= private < 40 * MIB


def test_a_process_says_what_is_its_own() -> None:
    """Memory that only this process has is some, and less than all of it."""
    assert 0 < private_bytes() < 8 << 30
    assert private_bytes(os.getpid()) > 0
