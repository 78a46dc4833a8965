"""Hours in short: a steady load while versions come and go, after which every process is as it was (G9).

Ten minutes with `MARWAY_TEST_LONG=1`, some seconds of the same otherwise, so that it stays in order;
`MARWAY_TEST_SOAK_S`, `MARWAY_TEST_SOAK_CYCLES` and `MARWAY_TEST_SOAK_RATE` set its length, its loads, and its
requests a second.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Self

import httpx
import psutil
import pytest

from support.fault_cluster import WAIT_S, Cluster
from support.open_loop import OpenLoop
from support.up import processes_of

LONG = bool(os.environ.get("MARWAY_TEST_LONG"))
SOAK_S = int(os.environ.get("MARWAY_TEST_SOAK_S", "600" if LONG else "8"))
CYCLES = int(os.environ.get("MARWAY_TEST_SOAK_CYCLES", "500" if LONG else "3"))
RATE = int(os.environ.get("MARWAY_TEST_SOAK_RATE", "300" if LONG else "20"))
SETTLED = 0.2
"""The share of the time after which nothing may grow: two minutes of ten."""
MIB = 1024 * 1024
RSS_MAX = 8 * MIB
CONNECTIONS = 4
"""Descriptors that come and go with the load's own connections: a leak is one a cycle."""

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(4 * SOAK_S + 600)]


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    at: float
    rss: int
    descriptors: int
    threads: int


class Watch:
    """Looks at processes twice a second until the context ends."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self.held: dict[str, list[Held]] = {name: [] for name in processes}
        self._processes = processes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="soak-watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            for name, process in self._processes.items():
                with process.oneshot():
                    found = Held(time.monotonic(), process.memory_info().rss, process.num_fds(), process.num_threads())
                self.held[name].append(found)


def test_fault_soak(cluster: Cluster) -> None:
    """Under load and with loads and unloads all the while no answer is lost, and no process grows (G9)."""
    processes = {f"{pod.name}'s sidecar": pod.sidecar for pod in cluster.pods}
    processes["gateway"] = next(
        process for process in processes_of(cluster.up.home) if {"marway", "gateway"} <= set(process.cmdline())
    )
    pod = cluster.pods[0]
    began = time.monotonic()
    with Watch(processes) as watch, OpenLoop([cluster.url], rate=RATE) as load, httpx.Client(trust_env=False) as client:
        for cycle in range(CYCLES):
            for what in ("unload", "load"):
                client.post(f"{pod.url}/models/probe/3.0/{what}", timeout=WAIT_S).raise_for_status()
            behind_s = began + SOAK_S * (cycle + 1) / CYCLES - time.monotonic()
            if behind_s > 0:
                load.wait_for_more(int(behind_s * RATE), timeout_s=behind_s + WAIT_S)
    took_s = time.monotonic() - began
    print(f"\n{len(load.samples)} requests and {CYCLES} loads in {took_s:.0f} s")
    assert load.failed == []
    for name, held in watch.held.items():
        early = [each for each in held if SETTLED <= (each.at - began) / took_s <= 2 * SETTLED]
        late = [each for each in held if (each.at - began) / took_s >= 1 - SETTLED]
        assert early, name
        assert late, name
        grown = {
            what: max(getattr(each, what) for each in late) - max(getattr(each, what) for each in early)
            for what in ("rss", "descriptors", "threads")
        }
        print(f"{name}: {grown['rss'] / MIB:+.1f} MiB, {grown['descriptors']:+d} files, {grown['threads']:+d} threads")
        assert grown["descriptors"] <= CONNECTIONS, name
        if LONG:  # a process that has just begun still grows
            assert grown["rss"] <= RSS_MAX, name
            assert grown["threads"] <= 0, name
