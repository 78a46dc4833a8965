"""A memory cgroup below the test's own, as a container has one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.up import wait_until

__all__ = ["memory_cgroup"]

_MOUNTED = Path("/sys/fs/cgroup/memory")


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    """Yield the folder of a cgroup (version 1) with this limit; skips the test where none can be made."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    mine = next((line.split(":", 2)[2] for line in lines if "memory" in line.split(":", 2)[1].split(",")), None)
    if mine is None:
        pytest.skip("no memory cgroup of version 1 here")
    folder = _MOUNTED / mine.lstrip("/") / f"marway-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as exc:
        pytest.skip(f"no cgroup can be made here: {exc}")
    try:
        yield folder
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text().strip(), timeout_s=30, what="the cgroup is empty")
        folder.rmdir()
