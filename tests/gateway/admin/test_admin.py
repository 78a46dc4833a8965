"""The admin port over fake pods: releases with proof, loads, drains, serving settings, deletion."""

import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, running
from marway.errors import LoadFailed, Overloaded, ReleaseRefused, Unavailable
from marway.registry import Registry
from marway.wire.comparison import Comparison
from marway.wire.problems import parse_problem
from marway_gateway.placement import score
from marway_ops.up.run import _release as release
from marway_ops.up.view import JsonView
from support.registry import publish, until

Steered = Callable[[str], AdminPod]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    """intent 1.0 at PROD and 1.1."""
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="1.1", label=None, golden=b"{}")


@asynccontextmanager
async def admin(registry: Registry, *names: str, **flags: object) -> AsyncIterator[tuple[Running, list[AdminPod]]]:
    """A gateway that knows its pods to be ready; the pods are in the order of intent 1.1."""
    pods = [AdminPod(name, registry=registry) for name in names]
    pods.sort(key=lambda pod: score(pod.name, "intent", "1.1"), reverse=True)
    try:
        for pod in pods:
            await pod.start()
        async with running(*pods, registry=registry, **flags) as gateway:
            while not all(pod["status"] for pod in (await gateway.admin.get("/pods")).json()):
                pass
            yield gateway, pods
    finally:
        for pod in pods:
            await pod.stop()


async def move(gateway: Running, version: str = "1.1", *, label: str = "PROD", **body: object) -> httpx.Response:
    return await gateway.admin.put(f"/models/intent/labels/{label}", json={"version": version, **body})


async def test_a_release_is_proved_first(registry: Registry) -> None:
    """A release loads the version on its home pod, stores the proof and moves the label; requests follow at once."""
    async with admin(registry, "a", "b", state_ttl_s=2.0) as (gateway, pods):
        assert (await gateway.predict()).headers["x-model-version"] == "1.0"  # the state is cached from here on
        answer = await move(gateway, note="better", if_currently="1.0")
        assert answer.status_code == 200, answer.text
        assert (await gateway.predict()).headers["x-model-version"] == "1.1"
    done = answer.json()
    assert (done["kind"], done["from"], done["to"], done["forced"], done["note"]) == (
        *("label", "1.0", "1.1", False, "better"),
    )
    assert [(load["pod"], load["proved"]) for load in done["loads"]] == [(pods[0].name, True)]
    assert pods[0].asked == ["POST /models/intent/1.1/load?prove=true"]
    assert pods[1].asked == []
    record = registry.record("intent", "1.1")
    (proof,) = registry.proofs(record.archive.sha256)
    assert (proof.kind, proof.golden_sha256, proof.by) == ("pod", record.golden_sha256, f"pod {pods[0].name}")
    assert proof.server_versions == {"torchserve": "0.12.0", "torch": "2.12"}
    assert registry.state("intent").labels == {"PROD": "1.1"}


async def test_a_difference_keeps_the_label(registry: Registry) -> None:
    """A version that answers otherwise is not released: the answer is a problem that shows the difference."""
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.differences = ("example 2: at label: 'timer' was expected, 'alarm' came",)
        answer = await move(gateway)
        assert (await gateway.predict()).headers["x-model-version"] == "1.0"
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["model"], problem["version"]) == (
        *(409, "answers_differ", "intent", "1.1"),
    )
    assert "1 of its 3 golden answers otherwise on pod a: example 2: at label: 'timer' was" in problem["detail"]
    assert problem["detail"].endswith("PROD stays at 1.0")
    assert list(registry.proofs(registry.record("intent", "1.1").archive.sha256)) == []
    assert registry.state("intent").labels == {"PROD": "1.0"}


async def test_force_moves_it_anyway(registry: Registry) -> None:
    """A forced release asks no pod, and the history says that it was forced."""
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.differences = ("example 1: other",)
        done = (await move(gateway, force=True)).json()
    assert (done["forced"], done["loads"], pod.asked) == (True, [], [])
    assert registry.state("intent").history[-1].forced is True


async def test_a_version_unlike_the_one_before_it_is_refused(registry: Registry) -> None:
    """A comparison that refuses keeps the label; the problem carries it. A first release is looked at by itself."""
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.comparison = Comparison(version="1.1", base="1.0", refused=("it fails 3 of 3 inputs that 1.0 answers",))
        answer = await move(gateway)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["comparison"]["pod"]) == (409, "release_refused", "a")
        assert "it fails 3 of 3 inputs that 1.0 answers; PROD stays at 1.0" in problem["detail"]
        assert registry.state("intent").labels == {"PROD": "1.0"}
        error = parse_problem(answer.content, status=409)
        assert isinstance(error, ReleaseRefused)
        assert error.comparison is not None
        assert error.comparison.refused == pod.comparison.refused
        assert (await move(gateway, force=True)).json()["comparison"]["not_compared"] == "the release was forced"
        assert (await move(gateway)).json()["comparison"]["not_compared"] == "PROD is at 1.1 already"
        pod.comparison = None
        assert (await move(gateway, label="STG")).json()["comparison"]["base"] is None
        assert pod.compared == ["POST /models/intent/1.1/compare?base=1.0", "POST /models/intent/1.1/compare"]


async def test_marway_up_serves_on_when_its_archive_is_refused(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`marway up ARCHIVE` whose version is refused says why and how to force it, and the version before serves on."""
    publish(registry, tmp_path, "mine", "1.0")
    publish(registry, tmp_path, "mine", "1.1", label=None)
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.comparison = Comparison(version="1.1", base="1.0", inputs_of="1.0", refused=("it fails 3 of 3 inputs",))
        await release(gateway.addresses.admin, registry, [("mine", "1.1")], JsonView())
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert registry.state("mine").labels == {"PROD": "1.0"}
        assert {each["event"] for each in said} == {"output"}  # and no step is done
        assert said[0]["line"] == "compared 1.1 with 1.0 by pod a, 0 golden inputs of 1.0:"
        assert "PROD stays at 1.0" in said[-1]["line"]
        assert said[-1]["line"].endswith("`marway release mine 1.1 --force`")
        pod.comparison = Comparison(
            version="1.1", base="1.0", inputs_of="1.0", inputs=3, compared=3, equal=2, both_answered=3
        )
        await release(gateway.addresses.admin, registry, [("mine", "1.1")], JsonView())
        assert registry.state("mine").labels == {"PROD": "1.1"}
        assert "answers 2 of 3 equal" in capsys.readouterr().out


async def test_versions_are_compared_on_request(registry: Registry) -> None:
    """The admin port compares a version with a label's on the pod that a release would ask, and moves nothing."""
    async with admin(registry, "a", "b") as (gateway, pods):
        path = "/models/intent/versions/1.1/compare"
        answer = await gateway.admin.post(path, params={"base": "PROD"}, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["base"], answer.json()["pod"]) == (200, "1.0", pods[0].name)
        answer = await gateway.admin.post(path, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert pods[0].compared == ["POST /models/intent/1.1/compare?base=1.0"]
    assert registry.state("intent").labels == {"PROD": "1.0"}


async def test_a_label_that_moves_during_the_comparison(registry: Registry, tmp_path: Path) -> None:
    """A release that was compared with a version that the label has left meanwhile changes nothing."""
    publish(registry, tmp_path, version="0.9", label=None)
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.while_comparing = lambda: registry.release("intent", "0.9", label="PROD", by="somebody else")
        answer = await move(gateway)
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert registry.state("intent").labels == {"PROD": "0.9"}


async def test_no_pod_that_can_prove_it(registry: Registry) -> None:
    """Where every pod refuses a load, the answer says what each of them said, and when to come back."""
    async with admin(registry, "a", "b") as (gateway, pods):
        for pod, seconds in zip(pods, (9, 7), strict=True):
            pod.refusal = Unavailable(f"not here, for {seconds} s", retry_after_s=seconds)
        answer = await move(gateway)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert sorted(answer.json()["detail"].split("; ")) == ["pod a: not here, for 7 s", "pod b: not here, for 9 s"]
    assert answer.headers["retry-after"] == "7"
    assert registry.state("intent").labels == {"PROD": "1.0"}


async def test_a_sidecar_that_cannot_compare(registry: Registry) -> None:
    """A pod whose sidecar is too old to compare keeps the label where it is, and the answer says what to do."""
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.too_old = True
        answer = await move(gateway)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "pod a cannot compare versions: its sidecar is older than this gateway" in answer.json()["detail"]
    assert registry.state("intent").labels == {"PROD": "1.0"}


async def test_a_proved_version_is_loaded_and_not_proved_again(registry: Registry) -> None:
    """A release of a version that has a proof loads it ahead, on all the pods that will serve it."""
    registry.set_serving("intent", set_fields={"pods": 2}, by="test")
    async with admin(registry, "a", "b", "c") as (gateway, pods):
        assert (await move(gateway, label="STG")).status_code == 200
        assert [pod.asked for pod in pods] == [
            ["POST /models/intent/1.1/load?prove=true"],
            ["POST /models/intent/1.1/load?prove=false"],
            [],
        ]
        assert (await move(gateway)).status_code == 200
        assert [len(pod.asked) for pod in pods] == [2, 2, 0]
        assert pods[0].asked[1] == "POST /models/intent/1.1/load?prove=false"
    assert len(list(registry.proofs(registry.record("intent", "1.1").archive.sha256))) == 1


async def test_a_load_that_fails_keeps_the_label(registry: Registry) -> None:
    """A version that no pod can load is not released, and the answer says why and where."""
    async with admin(registry, "a") as (gateway, (pod,)):
        pod.refusal = LoadFailed("intent 1.1 cannot be loaded: weights.pt is missing", model="intent", version="1.1")
        answer = await move(gateway, label="STG")
    assert (answer.status_code, answer.json()["code"]) == (500, "load_failed")
    assert answer.json()["detail"] == "pod a: intent 1.1 cannot be loaded: weights.pt is missing; STG is not set"
    assert "STG" not in registry.state("intent").labels


async def test_the_next_pod_proves_when_the_home_cannot(registry: Registry) -> None:
    """A pod that cannot take the load now is passed over; with none left the answer says so and when to ask again."""
    async with admin(registry, "a", "b") as (gateway, pods):
        pods[0].refusal = Overloaded("no memory is free", retry_after_s=7)
        assert [load["pod"] for load in (await move(gateway)).json()["loads"]] == [pods[1].name]
        registry.release("intent", "1.0", by="test")
        for pod in pods:
            pod.draining = True
            pod.tell()
        while any(each["eligible"] for each in (await gateway.admin.get("/pods")).json()):
            pass
        refused = await move(gateway)
    assert (refused.status_code, refused.json()["code"]) == (503, "no_pod_available")
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_repeated_change_is_made_once(registry: Registry) -> None:
    """A PUT that is sent again with its Idempotency-Key answers with the first one's entry, whatever happened since."""
    async with admin(registry, "a") as (gateway, (pod,)):
        headers = {"idempotency-key": "01JD0Z6Y8Q6V5T4S3R2P1N0M9K", "from": "ana@laptop"}
        url, body = "/models/intent/labels/PROD", {"version": "1.1", "if_currently": "1.0"}
        first = await gateway.admin.put(url, json=body, headers=headers)
        registry.release("intent", "1.0", by="somebody")
        second = await gateway.admin.put(url, json=body, headers=headers)
        other = await gateway.admin.put(url, json={"version": "1.0"}, headers=headers)
    assert (first.json()["op_id"], first.json()["by"]) == ("01JD0Z6Y8Q6V5T4S3R2P1N0M9K", "ana@laptop")
    assert second.json()["generation"] == first.json()["generation"]
    assert pod.compared == ["POST /models/intent/1.1/compare?base=1.0"]
    assert registry.state("intent").labels == {"PROD": "1.0"}
    assert (other.status_code, other.json()["code"]) == (400, "invalid_input")


async def test_rollback(registry: Registry) -> None:
    """A rollback needs no pod and no proof, and requests follow at once."""
    registry.release("intent", "1.1", by="test")
    async with running(registry=registry) as gateway:
        done = (await gateway.admin.post("/models/intent/labels/PROD/rollback", json={"note": "worse"})).json()
        assert (done["kind"], done["from"], done["to"], done["note"]) == ("rollback", "1.1", "1.0", "worse")
        again = await gateway.admin.post("/models/INTENT/labels/PROD/rollback")
        to = (await gateway.admin.post("/models/intent/labels/PROD/rollback", json={"to": "1.1"})).json()
        assert (to["kind"], to["to"], to["undone"]) == ("rollback", "1.1", 0)
    assert (again.status_code, again.json()["code"]) == (409, "state_conflict")


async def test_serving_settings(registry: Registry) -> None:
    """Settings are overridden for all versions or one, unset, and shown; pinning is one of them."""
    async with running(registry=registry) as gateway:
        url = "/models/intent/serving"
        await gateway.admin.patch(url, json={"set": {"max_batch_rows": 8}})
        pinned = await gateway.admin.patch(url, json={"version": "1.1", "set": {"pinned": True}, "note": "hot"})
        shown = (await gateway.admin.get(url)).json()
        version = (await gateway.client.get("/models/intent/versions/1.1")).json()
        unset = (await gateway.admin.patch(url, json={"unset": ["max_batch_rows"]})).json()
    assert shown["overrides"] == {"*": {"max_batch_rows": 8}, "1.1": {"pinned": True}}
    assert shown["change"] is None
    assert [shown["serving"][each]["pinned"] for each in ("1.0", "1.1")] == [False, True]
    assert shown["serving"]["1.0"]["max_workers"] is None  # every setting is there, the unset ones too
    assert (pinned.json()["change"]["serving"], pinned.json()["change"]["note"]) == (
        {"version": "1.1", "set": {"pinned": True}, "unset": []},
        "hot",
    )
    assert (version["serving"]["pinned"], version["serving"]["max_batch_rows"]) == (True, 8)
    assert unset["overrides"] == {"1.1": {"pinned": True}}


async def test_load_where_and_unload(registry: Registry) -> None:
    """A version is loaded where its requests will go or on a named pod, shown there, and unloaded everywhere."""
    async with admin(registry, "a", "b") as (gateway, pods):
        url = "/models/intent/versions/1.1"
        loaded = (await gateway.admin.post(f"{url}/load")).json()
        other = (await gateway.admin.post(f"{url}/load", params={"pod": pods[1].name, "prove": "true"})).json()
        proofs = list(registry.proofs(registry.record("intent", "1.1").archive.sha256))

        async def states() -> list[str | None]:
            found = (await gateway.admin.get(f"{url}/pods")).json()
            assert [pod["pod"] for pod in found["pods"]] == [pod.name for pod in pods]
            return [pod["model"] and pod["model"]["state"] for pod in found["pods"]]

        while await states() != ["ready", "ready"]:
            pass
        unloaded = (await gateway.admin.post(f"{url}/unload")).json()
        while await states() != [None, None]:
            pass
    assert [(load["pod"], load["proved"]) for load in loaded["loads"]] == [(pods[0].name, False)]
    assert [(load["pod"], load["proved"]) for load in other["loads"]] == [(pods[1].name, True)]
    assert [proof.by for proof in proofs] == [f"pod {pods[1].name}"]
    assert {name: status["state"] for name, status in unloaded["pods"].items()} == {"a": "absent", "b": "absent"}


async def test_the_deadline_reaches_the_pod(registry: Registry) -> None:
    """A load may take what the caller says, else what the version's own load may take."""
    registry.set_serving("intent", set_fields={"load_timeout_s": 30}, by="test")
    async with admin(registry, "a") as (gateway, (pod,)):
        await gateway.admin.post("/models/intent/versions/1.1/load", headers={"x-request-timeout-ms": "5000"})
        await gateway.admin.post("/models/intent/versions/1.1/load")
    given, own = (int(headers["x-request-timeout-ms"]) for headers in pod.headers)
    assert 4000 < given <= 5000
    assert 29_000 < own <= 30_000


async def test_drain_and_back(registry: Registry) -> None:
    """A drained pod gets no requests, from this gateway and from another, until it is taken back."""
    async with admin(registry, "a", "b") as (gateway, pods), running(*pods, registry=registry) as second:
        drained = (await gateway.admin.post(f"/pods/{pods[0].name}/drain")).json()
        assert (drained["eligible"], drained["trouble"]) == (False, "is draining")
        while (await second.admin.get(f"/pods/{pods[0].name}")).json()["eligible"]:
            pass
        for each in (gateway, second):
            assert (await each.predict("/predict/intent/1.1")).status_code == 200
        assert (len(pods[0].requests), len(pods[1].requests)) == (0, 2)
        back = (await gateway.admin.delete(f"/pods/{pods[0].name}/drain")).json()
        assert (back["eligible"], back["trouble"]) == (True, None)
        assert (await gateway.predict("/predict/intent/1.1")).status_code == 200
    assert len(pods[0].requests) == 1
    assert [each for each in pods[0].asked if "drain" in each] == ["POST /drain", "DELETE /drain"]


async def test_delete(registry: Registry) -> None:
    """A deleted version is refused at once here; one that a label points at goes only by force, with the label."""
    async with admin(registry, "a") as (gateway, _):
        assert (await gateway.predict("/predict/intent/1.1")).status_code == 200
        done = (await gateway.admin.delete("/models/intent/versions/1.1", params={"note": "leaks"})).json()
        assert (done["kind"], done["from"], done["note"]) == ("tombstone", "1.1", "leaks")
        gone = await gateway.predict("/predict/intent/1.1")
        assert (gone.status_code, gone.json()["code"]) == (404, "version_not_found")
        labelled = await gateway.admin.delete("/models/intent/versions/1.0")
        assert (labelled.status_code, labelled.json()["code"]) == (409, "state_conflict")
        assert (await gateway.predict()).status_code == 200
        forced = (await gateway.admin.delete("/models/intent/versions/1.0", params={"force": "true"})).json()
        assert forced["forced"] is True
        assert (await gateway.predict()).status_code == 404
    assert registry.state("intent").labels == {}


async def test_delete_a_model(registry: Registry) -> None:
    """A model is deleted whole and refused at once here; one that labels point at goes only by force."""
    async with running(registry=registry) as gateway:
        refused = await gateway.admin.delete("/models/intent/versions")
        assert (refused.status_code, refused.json()["code"]) == (409, "state_conflict")
        done = (await gateway.admin.delete("/models/INTENT/versions", params={"force": "true", "note": "old"})).json()
        assert (done["model"], [each["from"] for each in done["deleted"]]) == ("intent", ["1.0", "1.1"])
        assert (await gateway.predict()).status_code == 404
        assert "intent" not in [each["name"] for each in (await gateway.admin.get("/models")).json()["models"]]
        assert (await gateway.admin.delete("/models/intent/versions")).json()["deleted"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "/models/nobody/labels/PROD", {"version": "1.0"}, 404, "model_not_found"),
        ("PUT", "/models/intent/labels/PROD", {"version": "9"}, 404, "version_not_found"),
        ("PUT", "/models/intent/labels/prod", {"version": "1.1"}, 400, "invalid_reference"),
        ("PUT", "/models/intent/labels/PROD", {"version": "STG"}, 400, "invalid_reference"),
        ("PUT", "/models/..%00/labels/PROD", {"version": "1.0"}, 400, "invalid_reference"),
        ("POST", "/models/in%20tent/labels/PROD/rollback", None, 400, "invalid_reference"),
        ("PATCH", "/models/in%20tent/serving", {"set": {"pods": 2}}, 400, "invalid_reference"),
        ("GET", "/models/in%20tent/serving", None, 400, "invalid_reference"),
        ("DELETE", "/models/in%20tent/versions/1.1", None, 400, "invalid_reference"),
        ("DELETE", "/models/intent/versions/PROD", None, 400, "invalid_reference"),
        ("PUT", "/models/intent/labels/PROD", {}, 400, "invalid_request"),
        ("PUT", "/models/intent/labels/PROD", {"version": "1.1", "forced": True}, 400, "invalid_request"),
        ("PUT", "/models/intent/labels/PROD", {"version": "1.0", "if_currently": "1.1"}, 409, "state_conflict"),
        ("POST", "/models/intent/labels/STG/rollback", {}, 409, "state_conflict"),
        ("PATCH", "/models/intent/serving", {"set": {"batch": 8}}, 400, "invalid_request"),
        ("PATCH", "/models/intent/serving", {"set": {"pods": 0}}, 400, "invalid_request"),
        ("PATCH", "/models/intent/serving", {"unset": ["batch"]}, 400, "invalid_input"),
        ("PATCH", "/models/intent/serving", {"version": "9", "set": {"pods": 2}}, 404, "version_not_found"),
        ("POST", "/models/intent/versions/9/load", None, 404, "version_not_found"),
        ("POST", "/models/intent/versions/1.1/load?pod=z", None, 404, "pod_not_found"),
        ("POST", "/models/intent/versions/1.1/unload?pod=z", None, 404, "pod_not_found"),
        ("GET", "/models/intent/versions/9/pods", None, 404, "version_not_found"),
        ("DELETE", "/models/intent/versions/9", None, 404, "version_not_found"),
        ("POST", "/pods/z/drain", None, 404, "pod_not_found"),
        ("GET", "/pods/z", None, 404, "pod_not_found"),
        ("POST", "/pods/a/undrain", None, 404, "not_found"),
    ],
)
async def test_mistakes(
    registry: Registry, method: str, path: str, body: dict[str, object] | None, status: int, code: str
) -> None:
    """Each mistake is a problem with its own code, and changes nothing."""
    before = registry.state("intent")
    async with admin(registry, "a") as (gateway, _):
        answer = await gateway.admin.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert registry.state("intent") == before


async def test_a_pod_that_is_gone(registry: Registry) -> None:
    """A drain of a pod that does not answer is a 503 that names the pod."""
    async with admin(registry, "a") as (gateway, (pod,)):
        await pod.stop()
        answer = await gateway.admin.post("/pods/a/drain")
    assert (answer.status_code, answer.json()["detail"]) == (503, "pod a refused the connection")


async def test_a_release_seen_while_the_state_is_being_read(registry: Registry) -> None:
    """Whoever reads the state while it changes does not bring the old one back."""
    async with admin(registry, "a", state_ttl_s=0.05) as (gateway, _):
        seen: list[str] = []
        for version in ("1.1", "1.0", "1.1", "1.0"):
            await gateway.predict()  # reads again in the background, half a TTL later
            assert (await move(gateway, version)).status_code == 200
            seen.append((await gateway.predict()).headers["x-model-version"])
    assert seen == ["1.1", "1.0", "1.1", "1.0"]
    await until(lambda: registry.state("intent").labels == {"PROD": "1.0"})


@pytest.mark.parametrize("force", [True, False])
async def test_fault_read_only_registry(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    """Where the registry cannot be written, each change is refused with 503 and the reason, and reads go on."""
    root, real = str(tmp_path / "registry"), os.open

    def read_only(path: object, flags: int, *arguments: object, **more: object) -> int:
        if str(path).startswith(root) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *arguments, **more)  # type: ignore[call-overload, no-any-return]

    async with admin(registry, "a") as (gateway, _):
        monkeypatch.setattr(os, "open", read_only)
        answers = [
            await move(gateway, force=force),
            await gateway.admin.post("/models/intent/labels/PROD/rollback"),
            await gateway.admin.patch("/models/intent/serving", json={"set": {"pods": 2}}),
            await gateway.admin.delete("/models/intent/versions/1.1"),
        ]
        for answer in answers[:1] + answers[2:]:
            assert (answer.status_code, answer.json()["code"]) == (503, "registry_unavailable"), answer.text
            assert "Read-only file system" in answer.json()["detail"]
            assert "retry-after" in answer.headers
        assert answers[1].status_code == 503
        assert (await gateway.predict()).status_code == 200
    monkeypatch.undo()
    assert registry.state("intent").labels == {"PROD": "1.0"}


async def test_fault_registry_unmounted_under_a_gateway(registry: Registry, tmp_path: Path) -> None:
    """A change through a gateway whose registry is gone is refused with 503, makes nothing, and old answers go on."""
    place = tmp_path / "registry"
    async with admin(registry, "a") as (gateway, _):
        assert (await gateway.predict()).status_code == 200
        place.rename(tmp_path / "away")
        place.mkdir()
        answer = await move(gateway, force=True)
        assert (answer.status_code, answer.json()["code"]) == (503, "registry_unavailable"), answer.text
        assert "there is no registry" in answer.json()["detail"]
        unknown = await gateway.client.post("/predict/nobody", content=b"x")
        assert unknown.status_code == 503, unknown.text
        assert (await gateway.predict()).status_code == 200
    assert list(place.iterdir()) == []
