"""Tables as versions in a running gateway: opened before a label moves, joined to what a light model is given."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from aiohttp import web

from gateway.admin_pod import AdminPod
from gateway.fakes import FakePod, running
from marway.records import VersionRecord
from marway.registry import Registry, keys
from marway.wire.headers import OUTCOME, Outcome
from marway_archiver import publish_table
from support.graphs import publish_graph
from support.registry import publish, until

RANKED = {
    "nodes": {
        "all": {"kind": "sequence", "nodes": ["features", "score"]},
        "features": {"kind": "lookup", "table": "users", "key": "request.user", "columns": ["taste"], "into": "user"},
        "score": {"kind": "model", "model": "ranker"},
    },
    "start": "all",
}


async def echo(pod: FakePod, request: web.Request) -> web.StreamResponse:
    body = pod.requests[-1].body
    return web.Response(body=body, headers={"content-type": "application/json", OUTCOME: Outcome.ANSWERED})


def table(registry: Registry, scratch: Path, version: str, shift: float) -> VersionRecord:
    rows = pa.table({"id": [1, 2], "taste": [[0.5, shift], [1.5, shift]], "age": [30, 40]})
    pa.parquet.write_table(rows, scratch / "users.parquet")
    return publish_table(scratch / "users.parquet", model_name="users", version=version, key="id", registry=registry)


@pytest.mark.extended  # test_tables.py looks rows up, test_releasing.py releases what gateways run
async def test_a_table_is_released_and_its_rows_go_to_the_model(registry: Registry, tmp_path: Path) -> None:
    """The gateway opens a table before the label moves, which a damaged one does not; a graph joins the rows of the
    version that the label stands for, and no pod is asked for the table.
    """
    publish(registry, tmp_path, "ranker")
    table(registry, tmp_path, "1", 1.0)
    registry.release("users", "1", by="me")
    graph = publish_graph(registry, tmp_path, RANKED, name="ranked")
    second, damaged = table(registry, tmp_path, "2", 2.0), table(registry, tmp_path, "3", 3.0)
    key = keys.archive_key(damaged.archive)
    stored = tmp_path / "registry" / key
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    pod = AdminPod("a", registry=registry, behave=echo)
    await pod.start()
    async with running(pod, registry=registry, state_ttl_s=0.1, tables=tmp_path / "tables") as gateway:
        await until(lambda: pod.asked is not None)
        while not all(each["status"] for each in (await gateway.admin.get("/pods")).json()):
            pass

        async def ranked(user: object) -> object:
            body = json.dumps({"user": user, "item": 3}).encode()
            answer = await gateway.predict("/predict/ranked", body, content_type="application/json")
            return answer.json()

        assert await ranked(2) == {"user": {"taste": [1.5, 1.0]}, "item": 3}
        assert await ranked([2, 1]) == {"user": [{"taste": [1.5, 1.0]}, {"taste": [0.5, 1.0]}], "item": 3}
        missing = await ranked(9)
        moved = await gateway.admin.put("/models/users/labels/PROD", json={"version": "2"})
        assert moved.status_code == 200, moved.text
        await gateway.admin.put("/models/users/labels/PROD", json={"version": "2"})
        while await ranked(2) != {"user": {"taste": [1.5, 2.0]}, "item": 3}:
            pass
        refused = await gateway.admin.put("/models/users/labels/PROD", json={"version": "3"})
        unloaded = await gateway.admin.post("/models/users/versions/2/unload")
        loaded = await gateway.admin.post(f"/models/{graph.name}/versions/{graph.version}/load")
        asked = await gateway.predict("/predict/users", b"1", content_type="application/json")
        fetched = await gateway.metric('marway_gateway_table_fetches_total{outcome="ok"}')
    await pod.stop()
    assert "node features" in json.dumps(missing)
    assert "there is no key 9" in json.dumps(missing)
    (proof,) = registry.proofs(second.archive.sha256)
    assert (proof.kind, proof.server) == ("pod", "gateway")
    assert refused.status_code >= 400
    assert "was damaged" in refused.json()["detail"]
    assert registry.state("users").labels == {"PROD": "2"}
    assert (unloaded.status_code, "users 2 is a table, which no pod has" in unloaded.text) == (400, True)
    assert [each["pod"] for each in loaded.json()["loads"]] == ["gateway", "gateway", "a"]
    assert "is a table" in asked.text, asked.text
    assert fetched == 2
    assert not [each for each in pod.asked if "users" in each]
