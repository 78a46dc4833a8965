"""The worker processes below TorchServe: which there are, how they were started, what memory is theirs.

All of it is read from the process table, so it holds whatever the fork server and TorchServe know or forgot.

A worker that takes too much memory is ended before the kernel ends the pod for it. Where a container's limit is
reached, the kernel may kill every process of it at once (`memory.oom.group`, which Kubernetes sets on cgroup v2): one
greedy handler would take all models of its pod along. A limit for each worker does not prevent that, for the others
take memory too: so the container's own limit is watched as well, and when little is left, the worker goes that has
grown most in the last seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from marway.process.cgroups import Room
from marway.wire.runtime import Mode, RuntimeWorker
from marway_runtime.shared_pages import Areas, areas, copied_bytes

__all__ = ["OWN_RUNTIME", "WORKER_BIN", "MemoryGuard", "Worker", "find_workers", "measured", "resident_bytes"]

logger = logging.getLogger(__name__)

OWN_RUNTIME = "the archive's own Python"
"""Why a worker is plain that TorchServe did not start through our launcher."""

WORKER_BIN = "worker-bin"
"""Directory beside the launcher in which it is called `python3`."""

_SCRIPT = "model_service_worker.py"
_SHIM = "marway-worker-shim"
_PLAIN = "marway_runtime.worker"
_PASSING = ("worker-python", "shim.py", "torchrun")  # run the script's name through, and are no workers
_LOOK_S: Final = 0.05
"""A handler can write about 2 GiB a second: a twentieth of a second of that fits between the guard's limit and the
kernel's, and a look costs some 10 µs a worker."""
_FIND_S: Final = 2.0
"""How often the process table is searched for workers, which takes milliseconds."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_MIB: Final = 1024 * 1024
_LEFT_BYTES: Final = 128 * _MIB
"""What must be left below the container's limit; a sixteenth of the limit where that is less."""
_GROWN_BYTES: Final = 16 * _MIB
"""Less is no growth: when nobody has grown, the largest goes, as the kernel would choose."""
_FREED_S: Final = 1.0
"""How long it may take until a killed worker's memory is back."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process."""

    pid: int
    mode: Mode
    reason: str = ""
    """Why it is plain; of a forked one, what there is to know about it, if anything."""
    shim: int | None = None
    """The process that TorchServe takes for a forked worker."""
    parent: int | None = None
    """The process with its version's weights that it was forked from, and shares them with."""
    device: int | None = None
    """The device that it was given."""


def find_workers(torchserve: int) -> list[Worker]:
    """Return the workers of the TorchServe with this pid, in the order of their pids."""
    try:
        children = psutil.Process(torchserve).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return sorted(_recognised(children), key=lambda worker: worker.pid)


def measured(workers: Iterable[Worker], names: Path) -> list[RuntimeWorker]:
    """Return the workers that still live, with the memory that is theirs alone and what they serve.

    ``names`` is the folder where each writes the name it was told to load (`worker.bootstrap`).
    """
    found = []
    parents: dict[int | None, Areas] = {}
    for worker in workers:
        try:
            own = psutil.Process(worker.pid).memory_full_info().uss
            shim = psutil.Process(worker.shim).memory_full_info().uss if worker.shim is not None else 0
        except psutil.Error:
            continue  # ended meanwhile
        if own == 0:
            continue  # ended, and not reaped
        name = None
        with contextlib.suppress(OSError):
            name = (names / str(worker.pid)).read_text() or None
        found.append(
            RuntimeWorker(
                pid=worker.pid,
                server_name=name,
                mode=worker.mode,
                reason=worker.reason,
                private_bytes=own + shim,
                copied_bytes=min(own, _copied_bytes(worker, parents)),
                device=worker.device,
            )
        )
    with contextlib.suppress(OSError):
        living = {str(worker.pid) for worker in workers}
        for file in names.iterdir():
            if file.name not in living and not psutil.pid_exists(int(file.name)):
                file.unlink(missing_ok=True)  # before another process gets that pid
    return found


def _copied_bytes(worker: Worker, parents: dict[int | None, Areas]) -> int:
    """Return what a worker copied of its version's weights and of all else that it was forked with, in bytes."""
    if worker.parent is None:
        return 0
    try:
        if worker.parent not in parents:
            parents[worker.parent] = areas(worker.parent)
        return copied_bytes(worker.pid, parents[worker.parent])
    except OSError:
        return 0  # one of them ended meanwhile


def resident_bytes(pid: int) -> int:
    """Return the memory of this process that is resident, shared or not, in bytes; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _recognised(processes: Iterable[psutil.Process]) -> Iterator[Worker]:
    for process in processes:
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if _SHIM in words:
            yield _behind(int(_following(words, "--worker")), shim=process.pid)
        elif _PLAIN in words:
            yield Worker(process.pid, "plain", _following(words, "--reason"))
        elif _runs_script(words):
            yield Worker(process.pid, "plain", OWN_RUNTIME)


def _behind(pid: int, *, shim: int) -> Worker:
    """Return the worker behind a shim: forked, unless it became a Python of its own after that."""
    with contextlib.suppress(psutil.Error):
        words = psutil.Process(pid).cmdline()
        if _PLAIN in words:
            return Worker(pid, "plain", _following(words, "--reason"), shim=shim)
    return Worker(pid, "forked", shim=shim)


def _following(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def _runs_script(words: list[str]) -> bool:
    names = [word.rpartition("/")[2] for word in words]
    if _SCRIPT not in names or any(f"/{WORKER_BIN}/" in word for word in words):
        return False
    return not any(name in _PASSING for name in names[: names.index(_SCRIPT)])


class MemoryGuard:
    """Looks at the workers' memory, and kills the one over its limit, or over the container's (``room``, if any).

    ``find`` returns them, and is called in a thread; ``died`` is told of each that is killed, while its process is
    still there. ``give_up`` ends a process that is only kept in case it is wanted again, and returns whether there was
    one: such a one goes before any worker.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[Worker]],
        *,
        limit_bytes: int,
        room: Room | None,
        died: Callable[[Worker], None],
        give_up: Callable[[], bool],
    ) -> None:
        self._find = find
        self._limit_bytes = limit_bytes
        self._room = room
        self._keep = min(_LEFT_BYTES, room.limit_bytes // 16) if room is not None else 0
        self._died = died
        self._give_up = give_up
        self._before: dict[int, int] = {}
        self._lately: dict[int, int] = {}
        self._killed_at = float("-inf")

    async def run(self) -> None:
        """Look until cancelled."""
        workers: Sequence[Worker] = ()
        found_at = float("-inf")
        while True:
            if time.monotonic() - found_at >= _FIND_S:
                workers = await asyncio.to_thread(self._find)
                found_at = time.monotonic()
                self._before, self._lately = self._lately, {worker.pid: _own_bytes(worker.pid) for worker in workers}
            if self._look(workers):
                found_at = float("-inf")
            await asyncio.sleep(_LOOK_S)

    def _look(self, workers: Iterable[Worker]) -> bool:
        """Kill who has to go, and return whether anybody had to."""
        taken = {worker: _own_bytes(worker.pid) for worker in workers}
        over = [worker for worker, size in taken.items() if size > self._limit_bytes]
        for worker in over:
            self._kill(
                worker,
                f"it had {taken[worker] // _MIB} MiB of memory of its own, and {self._limit_bytes // _MIB} are allowed "
                "(worker_memory_bytes)",
            )
        if over or self._room is None or time.monotonic() - self._killed_at < _FREED_S:
            return bool(over)
        left = self._room.left_bytes(enough=self._keep)
        if left >= self._keep:
            return False
        if self._give_up():
            self._killed_at = time.monotonic()
            return True
        if not taken:
            return False
        grown = {worker: size - self._before.get(worker.pid, 0) for worker, size in taken.items()}
        most = max(grown, key=lambda worker: grown[worker])
        if grown[most] < _GROWN_BYTES:
            most = max(taken, key=lambda worker: taken[worker])
        self._kill(
            most,
            f"{max(0, left) // _MIB} MiB were left of the container's memory limit, and it had "
            f"{taken[most] // _MIB} MiB of its own, {max(0, grown[most]) // _MIB} of them new",
        )
        return True

    def _kill(self, worker: Worker, why: str) -> None:
        self._killed_at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, 0)  # it may have ended by itself
            self._died(worker)
            os.kill(worker.pid, signal.SIGKILL)
            logger.error("worker %d was killed: %s", worker.pid, why)


def _own_bytes(pid: int) -> int:
    """Return the resident memory of a process that no file stands behind, in bytes; 0 when it is gone.

    Of `/proc/PID/statm`: what a fork still shares with its parent counts too, so a forked worker begins at about
    100 MiB. What `measured` reads is exact, and takes a thousand times as long.
    """
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):  # an ended process' file is gone or empty
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES
