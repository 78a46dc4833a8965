"""A random schedule of kills, freezes, cancels and slow clients over two pods: no answer is wrong and none is lost.

Half a minute by default and a quarter of an hour with `MARWAY_TEST_LONG=1`. The seed is printed;
`MARWAY_TEST_SEED=N` repeats its choices (not their interleaving with what the machine does).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

import psutil
import pytest

from support.checked_clients import CheckedClients
from support.fault_cluster import Cluster, Pod

LONG = bool(os.environ.get("MARWAY_TEST_LONG"))
SCHEDULE_S = 900 if LONG else 25
CLIENTS = 16
UNAVAILABLE = {"status 503", "status 504"}
"""What a client may be told when a pod dies under it and no other may take its request: rarely, and always in words."""

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(SCHEDULE_S * 2 + 400)]


def test_fault_random_schedule(cluster: Cluster) -> None:
    """Under random kills, freezes, cancels and slow bodies no answer is wrong, and none that is waited for is lost."""
    seed = int(os.environ.get("MARWAY_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    choices = random.Random(seed)
    faults: Counter[str] = Counter()
    ends_at = time.monotonic() + SCHEDULE_S
    print(f"\nseed {seed}")
    with CheckedClients(cluster.up.gateway, clients=CLIENTS, seed=seed) as clients:
        while time.monotonic() < ends_at:
            faults[_harm(choices.choice(cluster.pods), choices)] += 1
            cluster.wait_until_well()
    print(f"faults {dict(faults)}; requests {clients.ends}")
    for line in clients.bad:
        print(line)
    assert clients.ends.get("wrong", 0) == 0, clients.bad
    assert clients.ends.get("lost", 0) == 0, clients.bad
    refused = {end: count for end, count in clients.ends.items() if end.startswith("status")}
    assert set(refused) <= UNAVAILABLE, clients.bad
    assert sum(refused.values()) <= 0.001 * clients.ends["right"], clients.bad


def _harm(pod: Pod, choices: random.Random) -> str:
    """Do one thing to a pod; return what."""
    victim = choices.choice(("java", "sidecar"))
    process: psutil.Process = getattr(pod, victim)
    if choices.random() < 0.5:
        process.kill()
        process.wait(10)
        return f"{victim} killed"
    process.suspend()
    try:
        threading.Event().wait(choices.uniform(0.1, 4))  # how long the fault itself lasts, not a wait for anything
    finally:
        process.resume()
    return f"{victim} frozen"
