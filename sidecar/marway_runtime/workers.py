"""The worker processes below TorchServe: which there are, how they were started, what memory is theirs.

All of it is read from the process table, so it holds whatever the fork server and TorchServe know or forgot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from marway.wire.workers import Mode, RuntimeWorker

__all__ = ["OWN_RUNTIME", "WORKER_BIN", "Worker", "find_workers", "measured", "private_bytes", "resident_bytes"]

OWN_RUNTIME = "the archive's own Python"
"""Why a worker is plain that TorchServe did not start through our launcher."""

WORKER_BIN = "worker-bin"
"""Directory beside the launcher in which it is called `python3`."""

_SCRIPT = "model_service_worker.py"
_SHIM = "marway-worker-shim"
_PLAIN = "marway_runtime.worker"
_PASSING = ("worker-python", "shim.py", "torchrun")  # run the script's name through, and are no workers


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process.

    Attributes:
        pid: The worker's own.
        mode: How it was started.
        reason: Why it is plain; of a forked one, what there is to know about it, if anything.
        shim: The process that TorchServe takes for a forked worker.
        shared_bytes: Memory that workers of its version share and that counts as this one's, in bytes.
    """

    pid: int
    mode: Mode
    reason: str = ""
    shim: int | None = None
    shared_bytes: int = 0


def find_workers(torchserve: int) -> list[Worker]:
    """Return the workers of the TorchServe with this pid, in the order of their pids."""
    try:
        children = psutil.Process(torchserve).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return sorted(_recognised(children), key=lambda worker: worker.pid)


def measured(workers: Iterable[Worker], names: Path) -> list[RuntimeWorker]:
    """Return the workers that still live, with their memory and what they serve.

    Args:
        workers: What was found.
        names: The folder where each worker writes the name it was told to load (`worker.bootstrap`).
    """
    found = []
    for worker in workers:
        try:
            taken = private_bytes(worker.pid) + (private_bytes(worker.shim) if worker.shim is not None else 0)
            taken += worker.shared_bytes
        except OSError:
            continue  # ended meanwhile
        name = None
        with contextlib.suppress(OSError):
            name = (names / str(worker.pid)).read_text() or None
        found.append(
            RuntimeWorker(pid=worker.pid, server_name=name, mode=worker.mode, reason=worker.reason, private_bytes=taken)
        )
    with contextlib.suppress(OSError):
        living = {str(worker.pid) for worker in workers}
        for file in names.iterdir():
            if file.name not in living and not psutil.pid_exists(int(file.name)):
                file.unlink(missing_ok=True)  # before another process gets that pid
    return found


def private_bytes(pid: int) -> int:
    """Return the memory that is this process's alone, in bytes.

    Raises:
        OSError: There is no such process, or the kernel does not say (Linux says from 4.14 on).
    """
    return _rollup(pid, "Private_Clean", "Private_Dirty")


def resident_bytes(pid: int) -> int:
    """Return the memory of this process that is resident, shared or not, in bytes; 0 when it is gone."""
    try:
        return _rollup(pid, "Rss")
    except OSError:
        return 0


def _rollup(pid: int, *names: str) -> int:
    total = 0
    found = False
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            total += int(value.split()[0]) * 1024
            found = True
    if not found:
        raise ProcessLookupError(f"process {pid} has ended")  # a zombie's file is empty
    return total


def _recognised(processes: Iterable[psutil.Process]) -> Iterator[Worker]:
    for process in processes:
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if _SHIM in words:
            yield Worker(int(_following(words, "--worker")), "forked", shim=process.pid)
        elif _PLAIN in words:
            yield Worker(process.pid, "plain", _following(words, "--reason"))
        elif _runs_script(words):
            yield Worker(process.pid, "plain", OWN_RUNTIME)


def _following(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def _runs_script(words: list[str]) -> bool:
    names = [word.rpartition("/")[2] for word in words]
    if _SCRIPT not in names or any(f"/{WORKER_BIN}/" in word for word in words):
        return False
    return not any(name in _PASSING for name in names[: names.index(_SCRIPT)])
