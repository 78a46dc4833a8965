"""Hours in short: a steady load while versions come and go, after which every process is as it was (G9).

Ten minutes with `MARWAY_TEST_LONG=1` (`make test-soak`), some seconds of the same otherwise, so that it stays in order;
`MARWAY_TEST_SOAK_S`, `MARWAY_TEST_SOAK_CYCLES` and `MARWAY_TEST_SOAK_RATE` set its length, its loads, and its
requests a second.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest

from support.every import LONG
from support.fault_cluster import WAIT_S, Cluster
from support.open_loop import OpenLoop
from support.up import wait_until

SHORT = {"torchserve": (8, 3, 20), "native": (40, 20, 50)}
FULL = {"torchserve": (600, 500, 300), "native": (600, 300, 300)}
"""By engine: seconds, loads, requests a second."""
SETTLED = 0.2
"""The share of the time after which nothing may grow: two minutes of ten."""
MIB = 1024 * 1024
RSS_MAX = 8 * MIB
CONNECTIONS = 4
"""TCP connections that a process may have more after the load than before it; a leak is one a cycle. Within it they are
as many as the load has requests under way."""
THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Of asyncio's pool: they come one by one, as blocking work meets other, up to so many. A leak is one a cycle."""
FILES = 0 if LONG else CONNECTIONS
"""Files more. In some seconds a connection to the runtime's socket may just be open in every look at the end."""
LOOK_S = 0.5

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(4 * 600 + 600 if LONG else 600)]


@dataclass(frozen=True)
class Held:
    """What a process holds; `files` are its descriptors but for TCP connections, Unix sockets and pipes among them."""

    at: float
    rss: int
    files: int
    threads: int


class Watch:
    """Looks at processes and directories twice a second until the context ends.

    Args:
        processes: By what they are called.
        directories: Whose files and directories are counted, by what they are called.
    """

    def __init__(self, processes: dict[str, psutil.Process], directories: dict[str, Path]) -> None:
        self.held: dict[str, list[Held]] = {name: [] for name in processes}
        self.entries: dict[str, list[tuple[float, int]]] = {name: [] for name in directories}
        self.failed: BaseException | None = None
        self._processes = processes
        self._directories = directories
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak-watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        try:
            while not self._stop.wait(LOOK_S):
                self._look()
        except (OSError, psutil.Error) as exc:  # a process ended, which none may
            self.failed = exc

    def _look(self) -> None:
        for name, process in self._processes.items():
            files = process.num_fds() - tcp_connections(process)
            with process.oneshot():
                found = Held(time.monotonic(), process.memory_info().rss, files, process.num_threads())
            self.held[name].append(found)
        for name, directory in self._directories.items():
            found_there = sum(len(inner) + len(files) for _, inner, files in os.walk(directory))  # some go meanwhile
            self.entries[name].append((time.monotonic(), found_there))


def tcp_connections(process: psutil.Process) -> int:
    return len(process.net_connections("tcp"))


@pytest.mark.extended  # what takes minutes is for `make test-long`; a few seconds say little
def test_fault_soak(cluster: Cluster) -> None:
    """Under load and with loads and unloads all the while no answer is lost, and nothing grows (G9)."""
    defaults = (FULL if LONG else SHORT)[cluster.engine]
    names = ("MARWAY_TEST_SOAK_S", "MARWAY_TEST_SOAK_CYCLES", "MARWAY_TEST_SOAK_RATE")
    soak_s, cycles, rate = (int(os.environ.get(name, value)) for name, value in zip(names, defaults, strict=True))
    processes = {"gateway": cluster.gateway}
    directories: dict[str, Path] = {}
    for pod in cluster.pods:
        processes[f"{pod.name}'s sidecar"] = pod.sidecar
        processes[f"{pod.name}'s runtime"] = pod.runtime
        processes[f"{pod.name}'s fork server"] = pod.fork_server
        directories[f"{pod.name}'s runtime directory"] = pod.directory
        directories[f"{pod.name}'s temporary files"] = (pod.directory / "tmp").resolve()
    url = cluster.pods[0].url
    connected = {name: tcp_connections(process) for name, process in processes.items()}
    began = time.monotonic()
    with (
        Watch(processes, directories) as watch,
        OpenLoop([cluster.url], rate=rate) as load,
        httpx.Client(trust_env=False) as client,
    ):
        for cycle in range(cycles):
            for what in ("unload", "load"):
                client.post(f"{url}/models/probe/3.0/{what}", timeout=WAIT_S).raise_for_status()
            behind_s = began + soak_s * (cycle + 1) / cycles - time.monotonic()
            if behind_s > 0:
                load.wait_for_more(int(behind_s * rate), timeout_s=behind_s + WAIT_S)
    took_s = time.monotonic() - began
    print(f"\n{cluster.engine}: {len(load.samples)} requests and {cycles} loads in {took_s:.0f} s")
    assert load.failed == []

    def grown(samples: list[tuple[float, int]], *ways: Callable[[list[int]], int]) -> int:
        """Return by how much more there was in the last fifth of the time than in the second, each way to look at it.

        What grows does so in its least, its usual and its most; what comes and goes with the versions may do so in one.
        """
        early = [value for at, value in samples if SETTLED <= (at - began) / took_s <= 2 * SETTLED]
        late = [value for at, value in samples if (at - began) / took_s >= 1 - SETTLED]
        assert early
        assert late
        return min(way(late) - way(early) for way in ways or (min, statistics.median_low, max))

    problems = []
    for name, held in watch.held.items():
        rss = grown([(each.at, each.rss) for each in held], max)
        files, threads = (grown([(each.at, getattr(each, what)) for each in held]) for what in ("files", "threads"))
        now = held[-1]
        print(
            f"{name}: {rss / MIB:+.1f} MiB of {now.rss / MIB:.0f}, {files:+d} files of {now.files}, "
            f"{threads:+d} threads of {now.threads}"
        )
        too_many_threads = threads > 0 and now.threads > held[0].threads + THREADS
        if files > FILES or too_many_threads or (LONG and rss > RSS_MAX):
            problems.append(name)  # without LONG: the memory of a process that has just begun still grows
    for name, entries in watch.entries.items():
        more = grown(entries)
        print(f"{name}: {more:+d} of {entries[-1][1]}")
        if more > 0:
            problems.append(name)
    assert problems == []
    for name, process in processes.items():
        wait_until(
            lambda name=name, process=process: tcp_connections(process) <= connected[name] + CONNECTIONS,
            timeout_s=60,
            what=f"{name} has no more connections than before",
        )
