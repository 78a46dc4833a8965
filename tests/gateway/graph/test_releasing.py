"""Graphs as versions: loaded, proved, compared, released, divided, copied and shown by a gateway that runs them."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from gateway.admin_pod import AdminPod
from gateway.fakes import FakePod, Running, running
from marway.errors import LoadFailed
from marway.registry import Registry
from marway.traffic import ShadowRule
from marway.wire.headers import OUTCOME, PRIORITY, TRAFFIC, Outcome
from marway_observations.store import store_beside_models
from support.dividing import divide, traffic_of
from support.golden_graphs import publish_golden_graph
from support.registry import publish, until

CHAIN = {
    "nodes": {
        "all": {"kind": "sequence", "nodes": ["clean", "score"]},
        "clean": {"kind": "model", "model": "clean"},
        "score": {"kind": "model", "model": "score"},
    },
    "start": "all",
}
TO_ONE = {"nodes": {"score": {"kind": "model", "model": "score"}}, "start": "score"}


async def told(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Say which model was asked, and in which version."""
    _, _, model, version = request.path.split("/")
    given = json.loads(pod.requests[-1].body)
    body = json.dumps({"by": [*given.get("by", []), model], "score": 0.5 if version == "1.0" else 0.75})
    return web.Response(body=body, headers={"content-type": "application/json", OUTCOME: Outcome.ANSWERED})


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    """clean and score 1.0 at PROD."""
    for name in ("clean", "score"):
        publish(registry, tmp_path, name)


@pytest.fixture
def graph(registry: Registry, tmp_path: Path) -> Callable[..., Any]:
    """Publishes a graph that is right about what it answers."""

    def made(version: str = "1.0", document: Any = CHAIN, by: tuple[str, ...] = ("clean", "score"), **more: Any) -> Any:
        answer = {"by": list(by), "score": 0.5}
        return publish_golden_graph(registry, tmp_path, document, [({}, answer)], version=version, **more)

    return made


@asynccontextmanager
async def gateway_of(registry: Registry, **flags: object) -> AsyncIterator[tuple[Running, AdminPod]]:
    pod = AdminPod("a", registry=registry, behave=told)
    await pod.start()
    try:
        async with running(pod, registry=registry, state_ttl_s=0.1, **flags) as gateway:
            while not all(each["status"] for each in (await gateway.admin.get("/pods")).json()):
                pass
            yield gateway, pod
    finally:
        await pod.stop()


async def release(gateway: Running, version: str, **body: object) -> httpx.Response:
    return await gateway.admin.put("/models/tour/labels/PROD", json={"version": version, **body})


async def test_a_release_of_a_graph(registry: Registry, graph: Callable[..., Any]) -> None:
    """Its nodes' versions are loaded, the gateway has it give its golden answers, which is its proof, and compares it
    with the one before; one with other fields is refused, and so is one that does not give its golden answers.
    """
    record = graph("1.0")
    graph("1.1", label=None)
    graph("2.0", TO_ONE)
    graph("3.0", {**CHAIN, "output": "{by: nodes.score.by, sum: `1`}"}, by=("clean", "score"))
    async with gateway_of(registry) as (gateway, pod):
        first = await release(gateway, "1.0")
        assert first.status_code == 200, first.text
        assert sorted(pod.asked) == [f"POST /models/{name}/1.0/load?prove=false" for name in ("clean", "score")]
        again = await release(gateway, "1.1")
        answer = await gateway.predict("/predict/tour", b"{}", content_type="application/json")
        unlike = await release(gateway, "2.0")
        forced = await release(gateway, "3.0")
    loads = [(each["pod"], each["proved"], each["report"]["server"]) for each in first.json()["loads"]]
    assert loads == [("gateway", True, "gateway"), ("a", False, "torchserve"), ("a", False, "torchserve")]
    (proof,) = registry.proofs(record.archive.sha256)
    assert (proof.kind, proof.server, proof.by, proof.golden_sha256) == (
        *("pod", "gateway", "gateway", record.golden_sha256),
    )
    comparison = again.json()["comparison"]
    assert (comparison["pod"], comparison["base"], comparison["equal"], comparison["compared"]) == (
        "gateway",
        "1.0",
        1,
        1,
    )
    assert answer.json() == {"by": ["clean", "score"], "score": 0.5}
    assert (unlike.status_code, unlike.json()["code"]) == (409, "answers_differ")
    assert "1 of its 1 golden answers otherwise in the gateway: example 1" in unlike.json()["detail"]
    assert unlike.json()["detail"].endswith("PROD stays at 1.1")
    assert forced.status_code == 409
    assert registry.state("tour").labels == {"PROD": "1.1"}
    # What callers asked is kept of steps, and nothing of proofs and comparisons.
    store = store_beside_models(registry)
    kept = [
        row
        for key in store.keys("observations/model=score/")
        for row in pq.read_table(io.BytesIO(store.get(key).data)).to_pylist()
    ]
    assert [(row["graph"], row["node"], row["surface"], row["label"]) for row in kept] == [
        (answer.headers["x-prediction-id"], "score", "graph", "PROD"),
    ]


# Extended: the release above loads a graph as this does.
@pytest.mark.extended
async def test_load_unload_and_where(registry: Registry, graph: Callable[..., Any]) -> None:
    """A graph is loaded with what its nodes ask, is on no pod and cannot be unloaded: each says what its nodes ask."""
    optional = {"kind": "model", "model": "clean", "required": False}
    graph("1.0", {**CHAIN, "nodes": {**CHAIN["nodes"], "clean": optional}}, label="PROD")
    async with gateway_of(registry) as (gateway, pod):
        path = "/models/tour/versions/PROD"
        done = await gateway.admin.post(f"{path}/load?prove=true")
        assert done.status_code == 200, done.text
        where = (await gateway.admin.get(f"{path}/pods")).json()["pods"]
        one = await gateway.admin.post(f"{path}/load?pod=a")
        gone = await gateway.admin.post(f"{path}/unload")
        index = await gateway.admin.post("/v2/repository/models/tour/unload")
        ready = await gateway.client.get("/v2/models/tour/ready")
        pod.refusal = LoadFailed("no such layer", model="clean", version="1.0")
        failed = await gateway.admin.post(f"{path}/load")
        pod.draining = True
        pod.tell()
        await until(lambda: not gateway_ready(pod))
        while (unready := await gateway.client.get("/v2/models/tour/ready")).status_code == 200:
            pass
    assert [(each["node"], each["pod"], each["model"]["name"]) for each in where] == [
        *(("clean", "a", "clean"), ("score", "a", "score")),
    ]
    assert (one.status_code, one.json()["code"]) == (400, "invalid_request")
    assert (gone.status_code, "unload the models that its nodes ask (clean, score)" in gone.json()["detail"]) == (
        400,
        True,
    )
    assert index.status_code == 400
    assert ready.status_code == 200
    # clean need not answer, score must
    assert (failed.json()["code"], failed.json()["node"]) == ("load_failed", "score")
    assert unready.status_code == 503
    assert "node score: no pod can take score 1.0 now" in unready.json()["error"]


def gateway_ready(pod: AdminPod) -> bool:
    return not pod.draining


# Extended: test_division.py and test_shadow_sending.py have what is looked at for models.
@pytest.mark.extended
async def test_a_divided_label_of_a_graph(registry: Registry, graph: Callable[..., Any], tmp_path: Path) -> None:
    """A candidate that is a graph gets its callers, and one that is copied to gets copies, which give way on pods."""
    graph("1.0", label="PROD")
    graph("2.0", TO_ONE, by=("score",))
    divide(registry, "tour", traffic_of(percent=100))
    async with gateway_of(registry) as (gateway, pod):
        got = await gateway.predict("/predict/tour", b"{}", content_type="application/json")
        assert (got.status_code, got.headers[TRAFFIC]) == (200, "candidate")
        assert got.json()["by"] == ["score"]
        divide(registry, "tour", traffic_of(percent=0, shadow=(ShadowRule(version="2.0", percent=100),)))

        async def copied() -> list[str]:
            await gateway.predict("/predict/tour", b"{}", content_type="application/json")
            return [each.path for each in pod.requests if each.headers.get(PRIORITY) == "shadow"]

        while not (copies := await copied()):
            pass
        divide(registry, "tour", None)
        rollout = "/models/tour/labels/PROD/rollout"
        started = await gateway.admin.post(rollout, json={"version": "2.0", "steps": [50], "step_time_s": 600})
        assert started.status_code == 200, started.text
        promoted = await gateway.admin.post(f"{rollout}/promote", json={})
        assert promoted.status_code == 200, promoted.text
    assert set(copies) == {"/predict/score/1.0"}
    begun = started.json()
    assert [each["pod"] for each in begun["loads"]] == ["gateway", "a"]
    assert (begun["comparison"]["pod"], begun["comparison"]["compared"]) == ("gateway", 1)
    assert registry.state("tour").labels == {"PROD": "2.0"}
