"""A random schedule of kills, freezes, loads, evictions, cancels and slow clients over two pods.

No answer is wrong, and none is lost.

Half a minute by default and a quarter of an hour with `MARWAY_TEST_LONG=1`, or as many seconds as
`MARWAY_TEST_SCHEDULE_S` says. The seed is printed;
`MARWAY_TEST_SEED=N` repeats its choices (not their interleaving with what the machine does).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

import httpx
import psutil
import pytest

from support.checked_clients import CheckedClients
from support.every import LONG
from support.fault_cluster import VERSIONS, WAIT_S, Cluster, Pod

SCHEDULE_S = int(os.environ.get("MARWAY_TEST_SCHEDULE_S", "900" if LONG else "25"))
CLIENTS = 16
UNAVAILABLE = {"status 503", "status 504"}
"""What a client may be told when a pod dies under it and no other may take its request: rarely, and always in words."""
NOTICED_S = 2.0
"""How long after the gateway is back a client may find a connection of before its death."""

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(SCHEDULE_S * 2 + 400)]


class Schedule:
    """Does one harm after the other.

    Attributes:
        done: How often what was done.
        gateway_away: From when to when no gateway took connections, by `time.monotonic`.
    """

    def __init__(self, cluster: Cluster, choices: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self.gateway_away: list[tuple[float, float]] = []
        self._cluster = cluster
        self._choices = choices

    def harm(self) -> None:
        """Do one thing to one pod or to the gateway, and wait until all is well again."""
        pod = self._choices.choice(self._cluster.pods)
        what = self._choices.choice(
            ("worker", "worker", "model server", "model server", "runtime", "sidecar", "sidecar", "gateway", "versions")
        )
        if what == "versions":
            self._come_and_go(pod)
            self._cluster.wait_until_well()
            return
        began = time.monotonic()
        killed = self._end_or_freeze(self._victim(pod, what), what)
        self._cluster.wait_until_well()
        if what == "gateway" and killed:
            self.gateway_away.append((began, time.monotonic() + NOTICED_S))

    def _victim(self, pod: Pod, what: str) -> psutil.Process:
        if what == "worker":
            return self._choices.choice(pod.workers())
        owner = self._cluster if what == "gateway" else pod
        process: psutil.Process = getattr(owner, what.replace(" ", "_"))
        return process

    def _end_or_freeze(self, process: psutil.Process, what: str) -> bool:
        """Kill a process or stop it for a while; return whether it was killed."""
        if self._choices.random() < 0.5:
            process.kill()
            process.wait(10)
            self.done[f"{what} killed"] += 1
            return True
        process.suspend()
        try:
            threading.Event().wait(self._choices.uniform(0.1, 4))  # how long the fault lasts, not a wait for anything
        finally:
            process.resume()
        self.done[f"{what} frozen"] += 1
        return False

    def _come_and_go(self, pod: Pod) -> None:
        """Evict what is asked for and load what is not, at one pod."""
        for version in VERSIONS:
            verb = self._choices.choice(("load", "unload"))
            url = f"{pod.url}/models/probe/{version}/{verb}"
            httpx.post(url, timeout=WAIT_S, trust_env=False).raise_for_status()
            self.done[f"version {verb}ed"] += 1


@pytest.mark.extended  # test_gateway_faults and test_soak break the same parts, one after the other
def test_fault_random_schedule(cluster: Cluster) -> None:
    """Under random harm, cancels and slow bodies no answer is wrong, and none that is waited for is lost."""
    seed = int(os.environ.get("MARWAY_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    schedule = Schedule(cluster, random.Random(seed))
    ends_at = time.monotonic() + SCHEDULE_S
    print(f"\nseed {seed}")
    with CheckedClients(cluster.up.gateway, clients=CLIENTS, seed=seed) as clients:
        while time.monotonic() < ends_at:
            schedule.harm()
    print(f"done {dict(schedule.done)}; requests {clients.ends}")
    for line in clients.bad:
        print(line)
    assert clients.ends.get("wrong", 0) == 0, clients.bad
    assert clients.ends.get("lost", 0) == 0, clients.bad
    # There is one gateway, and its death is the only one that callers may see.
    away = schedule.gateway_away
    assert [why for at, why in clients.disconnected if not any(begin <= at <= end for begin, end in away)] == []
    refused = {end: count for end, count in clients.ends.items() if end.startswith("status")}
    assert set(refused) <= UNAVAILABLE, clients.bad
    assert sum(refused.values()) <= 0.001 * clients.ends["right"], clients.bad
