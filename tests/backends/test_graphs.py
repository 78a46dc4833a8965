"""A graph over real servers of two makers: a model in Triton, and behind it one in TorchServe, under load."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.gateways import metric
from support.golden_graphs import publish_golden_graph
from support.kind_cluster import KindCluster
from support.kinds import KINDS
from support.open_loop import OpenLoop
from support.up import wait_until

# With real servers of other makers; what a gateway does with graphs over pods that are no real ones:
# tests/gateway/graph.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]

AT_ONCE, EACH = 64, 3
GRAPH = {
    "nodes": {
        "all": {"kind": "sequence", "nodes": ["read", "say"]},
        "read": {"kind": "model", "model": "reads"},
        "say": {
            "kind": "model",
            "model": "says",
            "input": "nodes.read[0][0]",
            "content_type": "text/plain",
        },
    },
    "start": "all",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """Triton, TorchServe, and Marway's own engine, which serves the same archives; the graph is released."""
    kinds = [KINDS[name] for name in ("triton", "torchserve", "native")]
    with KindCluster(tmp_path_factory.mktemp("graphs"), kinds) as running:
        running.publish("reads", "1.0", kind=kinds[0])
        for version in ("1.0", "2.0"):
            running.publish("says", version, kind=kinds[1])
        running.release("reads", "1.0")
        running.call("PATCH", "/models/says/serving", json={"set": {"engine": "torchserve"}})
        running.release("says", "1.0")
        scratch = running.home / "published"
        publish_golden_graph(running.registry, scratch, GRAPH, [({"text": [["hello"]]}, "1.0 1.0 hello")])
        released = running.release("tour", "1.0")
        assert [each["pod"] for each in released["loads"]] == ["gateway", "pod-0", "pod-1"]
        yield running


def ask(cluster: KindCluster, **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json", **headers}
    body = {"text": [["hello"]]}
    return httpx.post(cluster.url("tour"), json=body, headers=sent, timeout=60, trust_env=False)


async def test_64_at_once_and_none_is_lost(cluster: KindCluster) -> None:
    """All of 64 callers at once are answered, each of their requests, and every answer is that of both models."""
    told = Counter[str]()

    async def caller(client: httpx.AsyncClient) -> None:
        for _ in range(EACH):
            answer = await client.post(cluster.url("tour"), json={"text": [["hello"]]})
            told[answer.text if answer.status_code == 200 else f"{answer.status_code}: {answer.text}"] += 1

    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(timeout=120, trust_env=False, limits=limits) as client:
        await asyncio.gather(*(caller(client) for _ in range(AT_ONCE)))
    assert told == {"1.0 1.0 hello": AT_ONCE * EACH}


def test_a_steps_label_is_rolled_out_under_load(cluster: KindCluster) -> None:
    """While callers ask the graph, its second model's label is divided, and then moved: nobody is failed, and both
    versions of the step have answered.
    """
    body = json.dumps({"text": [["hello"]]})
    headers = {"content-type": "application/json"}
    with OpenLoop([cluster.url("tour")], rate=20, keeps_answers=True, body=body, headers=headers) as loop:
        loop.wait_for_more(20)
        start: dict[str, Any] = {"version": "2.0", "steps": [50, 100], "step_time_s": 600, "guards": {"errors": None}}
        cluster.call("POST", "/models/says/labels/PROD/rollout", json=start)
        for version in ("1.0", "2.0"):
            wait_until(
                lambda version=version: any(each.detail.startswith(version) for each in loop.samples[-10:]),
                timeout_s=60,
                what=f"an answer of {version}",
            )
        loop.wait_for_more(20)
        cluster.call("POST", "/models/says/labels/PROD/rollout/promote", json={})
        wait_until(
            lambda: {each.detail for each in loop.samples[-10:]} == {"2.0 1.0 hello"}, timeout_s=60, what="2.0 alone"
        )
    assert not loop.failed, loop.failed[:5]
    assert {each.detail for each in loop.samples} == {"1.0 1.0 hello", "2.0 1.0 hello"}
    for role in ("base", "candidate"):
        assert metric(cluster.gateway.url, "marway_gateway_traffic_requests_total", model="says", role=role) > 0


def test_a_pod_is_killed_under_a_graph(cluster: KindCluster) -> None:
    """TorchServe is killed under load: another pod takes the step's requests over, and nobody is failed."""
    cluster.call("PATCH", "/models/says/serving", json={"set": {"pods": 2}, "unset": ["engine"]})
    body = json.dumps({"text": [["hello"]]})
    headers = {"content-type": "application/json"}
    with OpenLoop([cluster.url("tour")], rate=20, keeps_answers=True, body=body, headers=headers) as loop:
        loop.wait_for_more(20)
        for pod in cluster.pods[1:]:
            wait_until(lambda pod=pod: ("says", "2.0") in pod.models(), timeout_s=60, what="both have it")
        cluster.pods[1].server.kill()
        loop.wait_for_more(60)
    assert not loop.failed, loop.failed[:5]
    assert ask(cluster).text == "2.0 1.0 hello"
