"""What clients notice when the only pod that has a version loaded loses it, and when the only gateway dies."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from support.fault_cluster import WAIT_S, Cluster
from support.up import processes_of, wait_until

# Extended: test_random_schedule.py kills the same processes.
pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.extended]

CLIENTS = 12


def ask(url: str) -> httpx.Response:
    return httpx.post(url, content=b"hello", timeout=WAIT_S, trust_env=False)


def test_fault_model_server_dies_while_no_other_pod_is_warm(cluster: Cluster) -> None:
    """kill -9 with 12 requests in hand for a version that no other pod has: all of them wait for one load."""
    url = f"{cluster.up.gateway}/predict/slow-load"
    assert ask(url).status_code == 200
    wait_until(
        lambda: any(pod.has("slow-load", "1.0") for pod in cluster.pods), timeout_s=WAIT_S, what="one pod has it"
    )
    home, other = sorted(cluster.pods, key=lambda pod: not pod.has("slow-load", "1.0"))
    httpx.post(f"{other.url}/models/slow-load/1.0/unload", timeout=WAIT_S, trust_env=False).raise_for_status()
    model_server = home.model_server
    with ThreadPoolExecutor(CLIENTS) as threads:
        began = time.monotonic()
        answers = [threads.submit(ask, url) for _ in range(CLIENTS)]
        wait_until(lambda: at_work(home) > 0, timeout_s=WAIT_S, what="requests are in hand")
        model_server.kill()
        found = [answer.result(WAIT_S) for answer in answers]
    print(f"\n{CLIENTS} requests answered within {time.monotonic() - began:.1f} s")
    assert [answer.text for answer in found if answer.status_code != 200] == []


def test_fault_the_only_gateway_dies(cluster: Cluster) -> None:
    """kill -9 of the one gateway of `marway up`: it is started again at once, and serves with what pods have loaded."""
    gateway = next(each for each in processes_of(cluster.up.home) if "gateway" in each.info["cmdline"])
    gateway.kill()
    began = time.monotonic()

    def answers() -> bool:
        try:
            return ask(cluster.url).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, timeout_s=WAIT_S, what="the gateway answers again")
    print(f"\nthe gateway answered again after {time.monotonic() - began:.1f} s")


def at_work(pod) -> int:
    models = httpx.get(f"{pod.url}/models", timeout=WAIT_S, trust_env=False).json()
    return sum(each["requests_in_flight"] for each in models if each["name"] == "slow-load")
