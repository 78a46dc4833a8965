"""What clients of a gateway notice of deaths, moves and stops behind it while they ask: nothing.

Each test runs an open-loop load against real pods and breaks something under it. At a reduced scale by default;
`MARWAY_TEST_LONG=1` runs the full schedule of the reliability goals. Counts are asserted, times are printed.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from support.every import LONG
from support.fault_cluster import VERSIONS, WAIT_S, Cluster
from support.gateways import GatewayProcess, metric
from support.open_loop import OpenLoop, percentile
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(600)]

RATE = 200 if LONG else 30
STALE_S = 2.0
"""The staleness bound that is promised for labels."""


def test_fault_pods_killed_under_load(cluster: Cluster) -> None:
    """kill -9 of model servers and a sidecar under load: every request is answered, with few retries (G1)."""
    gateway = cluster.up.gateway
    retries = metric(gateway, "marway_gateway_retries_total")
    one, other = cluster.pods
    kills = [lambda: one.model_server, lambda: other.sidecar, lambda: other.model_server]
    with OpenLoop([cluster.url], rate=RATE) as load:
        for victim in kills if LONG else kills[:2]:
            load.wait_for_more(RATE)
            process = victim()
            process.kill()
            process.wait(10)
            load.wait_for_more(RATE)
            cluster.wait_until_well()
        load.wait_for_more(RATE)
    retries = metric(gateway, "marway_gateway_retries_total") - retries
    print(f"\n{len(load.samples)} requests, {retries:.0f} retries, longest {max(s.took_s for s in load.samples):.2f} s")
    assert load.failed == []
    assert retries <= 0.2 * len(load.samples)


@pytest.mark.extended  # tests/gateway/test_gateway_faults.py, with pods of the tests' own
def test_fault_black_holed_pod(cluster: Cluster) -> None:
    """A sidecar that is frozen (SIGSTOP) costs each caller its own deadline at most, and soon nobody anything (G8)."""
    deadline_s = 2.0
    sidecar = cluster.pods[0].sidecar
    with OpenLoop([cluster.url], rate=RATE, headers={"x-request-timeout-ms": f"{deadline_s * 1000:.0f}"}) as load:
        load.wait_for_more(RATE)
        sidecar.suspend()
        try:
            wait_until(lambda: _in_rotation(cluster) == 1, timeout_s=WAIT_S, what="the frozen pod is out of rotation")
            found_at = time.monotonic()
            load.wait_for_more(2 * RATE)
        finally:
            sidecar.resume()
    late = [sample for sample in load.samples if sample.status != 200]
    print(f"\n{len(load.samples)} requests, {len(late)} late, longest {max(s.took_s for s in load.samples):.3f} s")
    assert {sample.status for sample in late} <= {504}
    assert all(sample.took_s < deadline_s + 2.0 for sample in load.samples)
    assert [sample for sample in late if sample.sent_at > found_at] == []


def _in_rotation(cluster: Cluster) -> int:
    shown = httpx.get(f"{cluster.up.ready['admin']}/pods", timeout=30, trust_env=False).json()
    return sum(pod["eligible"] for pod in shown)


@pytest.mark.extended  # tests/gateway/test_gateway_faults.py, with pods of the tests' own
def test_fault_sigterm_to_a_pod(cluster: Cluster) -> None:
    """A pod that is stopped under load (sidecar, then runtime) ends within 20 s and loses no request (G6)."""
    pod = cluster.pods[0]
    with OpenLoop([cluster.url], rate=RATE) as load:
        load.wait_for_more(RATE)
        took = []
        for process in (pod.sidecar, pod.runtime):
            began = time.monotonic()
            process.terminate()
            process.wait(20)
            took.append(time.monotonic() - began)
        load.wait_for_more(RATE)
        cluster.wait_until_well()
        load.wait_for_more(RATE)
    print(f"\n{len(load.samples)} requests; sidecar and TorchServe ended within {took[0]:.1f} and {took[1]:.1f} s")
    assert load.failed == []


@pytest.mark.extended  # tests/gateway/test_gateway_faults.py, with pods of the tests' own
def test_fault_sigterm_to_a_gateway(cluster: Cluster, tmp_path: Path) -> None:
    """One of two gateways is stopped under load: it ends within 20 s, and no request is lost (G6)."""

    def gateway(name: str) -> GatewayProcess:
        return GatewayProcess(tmp_path / name, registry=cluster.up.registry, pods=cluster.addresses)

    with gateway("one") as one, gateway("two") as two:
        urls = [f"{each.url}/predict/probe" for each in (one, two)]
        with OpenLoop(urls, rate=RATE) as load:
            load.wait_for_more(RATE)
            began = time.monotonic()
            one.process.terminate()
            assert one.process.wait(20) == 0
            took = time.monotonic() - began
            load.wait_for_more(RATE)
    moved = sum(sample.moves > 0 for sample in load.samples)
    print(f"\n{len(load.samples)} requests, {moved} taken to the other gateway; ended within {took:.1f} s")
    assert load.failed == []
    assert moved > 0


def test_fault_label_moves_under_load(cluster: Cluster) -> None:
    """A label that moves under load fails no request, and no answer is by a version that it left 2 s before (G4)."""
    moves = 100 if LONG else 8
    at: list[tuple[float, str]] = [(time.monotonic(), "1.0")]
    versions = itertools.cycle([*VERSIONS[1:], VERSIONS[0]])
    with OpenLoop([cluster.url], rate=RATE) as load:
        load.wait_for_more(RATE // 2)
        for version in itertools.islice(versions, moves):
            cluster.registry.release("probe", version, forced=True, by="test")
            at.append((time.monotonic(), version))
            load.wait_for_more(RATE)
    cluster.registry.release("probe", "1.0", forced=True, by="test")
    assert load.failed == []
    assert {sample.version for sample in load.samples} == set(VERSIONS)
    left = [moved for moved, _ in at[1:]] + [float("inf")]
    stale = []
    for sample in load.samples:
        # It was resolved after it was sent: then the version had been at the label for the last time when?
        last = max(
            end
            for (begin, version), end in zip(at, left, strict=True)
            if version == sample.version and begin <= sample.done_at + STALE_S
        )
        stale.append(max(0.0, sample.sent_at - last))
    print(f"\n{len(load.samples)} requests, {moves} moves, the oldest version was left {max(stale):.2f} s before")
    assert max(stale) <= STALE_S


@pytest.mark.extended  # tests/gateway/test_gateway_faults.py, with pods of the tests' own
def test_fault_slow_clients(cluster: Cluster) -> None:
    """500 connections that send their headers a byte at a time are closed within 10 s and harm no one else (G7)."""
    parts = urlsplit(cluster.up.gateway)
    with OpenLoop([cluster.url], rate=RATE) as before:
        before.wait_for_more(3 * RATE)
    with contextlib.ExitStack() as stack, OpenLoop([cluster.url], rate=RATE) as load:
        began = time.monotonic()
        open_ones = {stack.enter_context(_slow(parts.hostname, parts.port)) for _ in range(500)}
        closed_after = []
        while open_ones and time.monotonic() < began + 60:
            for connection in list(open_ones):
                if _is_closed(connection):
                    open_ones.remove(connection)
                    closed_after.append(time.monotonic() - began)
            load.wait_for_more(RATE // 4)
    ratio = percentile([s.took_s for s in load.samples], 99) / percentile([s.took_s for s in before.samples], 99)
    closed = f"{len(closed_after)} connections closed within {max(closed_after):.1f} s"
    print(f"\n{closed}; p99 of the others {ratio:.2f} times")
    assert open_ones == set()
    assert max(closed_after) <= 10
    assert before.failed == load.failed == []


def _slow(host: str | None, port: int | None) -> socket.socket:
    connection = socket.create_connection((host, port))
    connection.sendall(b"POST /predict/probe HTTP/1.1\r\nhost: x\r\nx-slow: ")
    connection.setblocking(False)
    return connection


def _is_closed(connection: socket.socket) -> bool:
    """Send another byte; return whether the other side has ended the connection."""
    try:
        connection.send(b"x")
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
