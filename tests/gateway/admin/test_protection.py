"""Protected labels and consumers' contracts over the admin port, with fake pods."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from gateway.admin.test_admin import admin, move
from gateway.fakes import FakePod, Running, busy, fail
from marway.errors import ModelError
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from support.registry import publish


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    """intent 1.0 at PROD, and 1.1."""
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="1.1", label=None, golden=b"{}")


def answers(**by_version: Any) -> Any:
    """Answer as each version does: `v1_0={...}`."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        found = by_version["v" + request.match_info["version"].replace(".", "_")]
        return web.json_response(found, headers={OUTCOME: Outcome.ANSWERED})

    return behave


def put(gateway: Running, name: str = "alarm", *, by: str = "ana", **more: Any) -> Any:
    body = {"input_b64": base64.b64encode(b"wake me").decode(), "content_type": "text/plain", **more}
    return gateway.admin.put(f"/models/intent/contracts/search/{name}", json=body, headers={"from": by})


async def approve(gateway: Running, by: str, **more: Any) -> httpx.Response:
    path = "/models/intent/labels/PROD/approvals"
    return await gateway.admin.post(path, json={"version": "1.1", **more}, headers={"from": by})


async def test_a_protected_label_over_the_admin_port(registry: Registry) -> None:
    """A release is refused with all that is missing before a pod is asked, and made when others have agreed."""
    protection = "/models/intent/labels/PROD/protection"
    async with admin(registry, "a") as (gateway, (pod,)):
        done = (await gateway.admin.patch(protection, json={"approvals": 1, "require": ["pod", "contracts"]})).json()
        assert (done["kind"], done["from"], done["to"], done["protection"]["action"]) == (
            "label",
            "1.0",
            "1.0",
            "protect",
        )
        problem = (await move(gateway)).json()
        assert (problem["status"], problem["code"]) == (409, "label_protected")
        assert "(1) 0 of 1 approvals" in problem["detail"]
        assert "(2)" not in problem["detail"]  # the release makes these proofs itself
        assert pod.asked == []
        plan = {"params": {"plan": "true", "rate": "100"}, "json": {"version": "1.1", "steps": [50]}}
        planned = (await gateway.admin.post("/models/intent/labels/PROD/rollout", **plan)).json()
        assert "It will not start yet: intent PROD is protected" in planned["plan"]["notes"][-1]
        assert (await approve(gateway, "test")).json()["code"] == "state_conflict"  # its publisher
        assert (await approve(gateway, "bo@desk", note="fine")).json()["protection"]["version"] == "1.1"
        (seen,) = (await gateway.admin.get(protection)).json()["versions"]
        assert (seen["version"], seen["approved_by"], len(seen["asked_by"])) == ("1.1", ["bo@desk"], 1)
        assert (await move(gateway)).json()["approved_by"] == ["bo@desk"]
        assert pod.asked == ["POST /models/intent/1.1/load?prove=true"]
        off = (await gateway.admin.delete(protection, params={"note": "quiet"})).json()
        assert (off["protection"]["action"], off["note"]) == ("off", "quiet")
        assert not (await gateway.admin.get(protection)).json()["protected"]


async def test_a_label_of_both_engines_is_proved_on_both(registry: Registry) -> None:
    """A release has proofs of both engines made where a label asks for them; without a pod of one it says so."""
    registry.protect("intent", require=["engines"], by="root")
    async with admin(registry, "a", "b") as (gateway, pods):
        problem = (await move(gateway)).json()
        assert "still of native: `marway load intent/1.1 --prove --pod POD`" in problem["detail"]
        assert sum(len(pod.asked) for pod in pods) == 1
        pods[1].backend = "native"
        pods[1].tell()
        while (await gateway.admin.get(f"/pods/{pods[1].name}")).json()["status"]["backend"] != "native":
            pass
        assert (await move(gateway)).json()["to"] == "1.1"
    servers = {proof.server for proof in registry.proofs(registry.record("intent", "1.1").archive.sha256)}
    assert servers == {"torchserve", "native"}


async def test_a_contract_is_kept_by_every_release(registry: Registry) -> None:
    """A version that answers a consumer otherwise does not get the label, and the refusal names the consumer."""
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.behave = answers(v1_0={"label": "alarm", "score": 0.9}, v1_1={"label": "timer", "score": 0.9, "new": 1})
        made = (await put(gateway, from_label="PROD", fields=["label"])).json()
        assert (made["expected"], made["from_version"]) == ({"label": "alarm", "score": 0.9}, "1.0")
        refused = await move(gateway)
        assert (refused.status_code, refused.json()["code"]) == (409, "contract_broken")
        said = 'search (contract alarm: label: "alarm" was expected, "timer" came); PROD stays at 1.0'
        assert said in refused.json()["detail"]
        checked = (await gateway.admin.post("/models/intent/versions/1.1/contracts")).json()
        assert checked["broken"][0]["consumer"] == "search"
        rollout = {"version": "1.1", "steps": [50]}
        started = await gateway.admin.post("/models/intent/labels/PROD/rollout", json=rollout)
        assert started.json()["code"] == "contract_broken"
        pod.behave = answers(v1_1={"label": "alarm", "score": 0.2, "new": 1})
        assert (await move(gateway)).json()["to"] == "1.1"
        asked = len(pod.requests)
        assert (await move(gateway, version="1.0", force=True)).json()["to"] == "1.0"
        assert (await move(gateway)).json()["to"] == "1.1"  # proved before: no pod is asked again
        assert len(pod.requests) == asked
        (listed,) = (await gateway.admin.get("/models/intent/contracts")).json()
        assert (listed["consumer"], listed["fields"], listed["input_bytes"]) == ("search", ["label"], 7)
        await gateway.admin.delete("/models/intent/contracts/search/alarm")
        assert (await gateway.admin.get("/models/intent/contracts")).json() == []
    assert [entry.contract.action for entry in registry.history("intent") if entry.contract] == ["remove", "add"]
    assert list(registry.store.keys("contracts/")) == []


async def test_a_pod_that_fails_is_no_broken_contract(registry: Registry) -> None:
    """A handler that fails breaks a contract; a pod that cannot answer does not, and says so."""
    async with admin(registry, "a") as (gateway, (pod,)):
        expected = base64.b64encode(json.dumps({"label": "alarm"}).encode()).decode()
        assert (await put(gateway, expect_b64=expected)).status_code == 200
        pod.behave = fail(ModelError("KeyError: 'text'"), Outcome.MODEL_ERROR)
        problem = (await move(gateway)).json()
        assert (problem["code"], "KeyError: 'text'" in problem["detail"]) == ("contract_broken", True)
        pod.behave = busy
        checking = gateway.admin.post("/models/intent/versions/1.1/contracts", headers={"x-request-timeout-ms": "400"})
        assert (await checking).json()["code"] in ("overloaded", "deadline_exceeded")


async def test_contracts_that_are_none(registry: Registry) -> None:
    """What cannot be a contract is refused with what is wrong about it, and nothing is kept."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "give either the answer that is expected"),
        ({"expect_b64": "!!"}, "expect_b64 is no base64"),
        ({"expect_b64": "e30=", "fields": ["label"]}, "'label' finds nothing in the expected answer {}"),
        ({"expect_b64": "e30=", "fields": ["["]}, "is no JMESPath"),
        ({"expect_b64": "eA==", "fields": ["label"]}, "finds nothing in the expected answer"),
        ({"from_label": "PROD", "status": 404}, "status goes with expect_b64"),
        ({"expect_b64": "e30=", "name": "a b"}, "cannot be a contract's name"),
    ]
    async with admin(registry) as (gateway, _):
        for body, said in cases:
            answer = await put(gateway, **body)
            assert (answer.status_code, said in answer.json()["detail"]) == (400, True), answer.text
    assert registry.state("intent").contracts == {}
    assert list(registry.store.keys("contracts/")) == []
