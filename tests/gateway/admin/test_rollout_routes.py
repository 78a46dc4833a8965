"""Rollouts over the admin port, and by `marway rollout`, with a fake pod."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, running
from marway.records import utc_now
from marway.registry import Registry
from marway.registry.traffic.reports import RolloutReport
from marway.wire.comparison import Comparison
from marway.wire.rollouts import GuardEvidence
from support.in_process import Marway, Said
from support.registry import publish

Run = Callable[..., Awaitable[Said]]
PATH = "/models/intent/labels/PROD/rollout"


@pytest.fixture
async def served(registry: Registry, tmp_path: Path) -> AsyncIterator[tuple[Running, AdminPod]]:
    """A gateway with one pod, intent 1.0 at PROD and 1.1."""
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="1.1", label=None, golden=b"{}")
    pod = AdminPod("a", registry=registry)
    await pod.start()
    try:
        async with running(pod, registry=registry) as started:
            while (await started.client.get("/readyz")).status_code != 200:
                pass
            yield started, pod
    finally:
        await pod.stop()


@pytest.fixture
def run(
    served: tuple[Running, AdminPod],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """The command, in an empty directory, with the gateway's admin port in its environment."""
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: [])
    monkeypatch.setenv("MARWAY_GATEWAY_ADMIN_URL", served[0].addresses.admin)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    command = Marway(monkeypatch, capsys)

    async def call(*arguments: str) -> Said:
        return await asyncio.to_thread(command, "rollout", *arguments)

    return call


def document(said: Said) -> Any:
    assert said.code == 0, said.err
    return json.loads(said.out)


async def begin(gateway: Running, **body: Any) -> httpx.Response:
    return await gateway.admin.post(PATH, json={"version": "1.1", **body})


async def test_started_as_a_release_is(registry: Registry, served: tuple[Running, AdminPod]) -> None:
    """A start has a pod load, prove and compare the candidate; then the label is divided, and stays where it is."""
    gateway, pod = served
    answer = await begin(gateway, steps=[2, 20], sticky="group", note="smaller")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert pod.asked == ["POST /models/intent/1.1/load?prove=true"]
    assert pod.compared == ["POST /models/intent/1.1/compare?base=1.0"]
    assert (found["base"], found["comparison"]["equal"], found["loads"][0]["proved"]) == ("1.0", 3, True)
    assert found["change"]["rollout"]["action"] == "start"
    status = found["rollout"]
    told = {name: status[name] for name in ("state", "step", "percent", "base", "candidate", "reason", "sticky")}
    assert told == {
        "state": "running",
        "step": 0,
        "percent": 2,
        "base": "1.0",
        "candidate": "1.1",
        "reason": None,
        "sticky": "group",
    }
    traffic = registry.state("intent").traffic["PROD"]
    assert (traffic.rollout, traffic.steps, traffic.note) == (status["rollout"], (2, 20, 100), "smaller")
    assert registry.state("intent").labels == {"PROD": "1.0"}
    again = (await gateway.admin.get(PATH)).json()
    assert {**status, "step_s": None, "evidence": None} == {**again, "step_s": None, "evidence": None}
    # The guard of memory is there from the first look at pods on.
    assert status["evidence"] == {guard: again["evidence"][guard] for guard in status["evidence"]}


async def test_refused_as_a_release_is(registry: Registry, served: tuple[Running, AdminPod]) -> None:
    """A candidate that answers otherwise, or not like the base, is not rolled out unless that is forced."""
    gateway, pod = served
    pod.differences = ("example 1: other",)
    answer = await begin(gateway)
    assert (answer.status_code, answer.json()["code"]) == (409, "answers_differ")
    pod.differences, pod.comparison = (), Comparison(version="1.1", base="1.0", refused=("it fails 3 of 3 inputs",))
    answer = await begin(gateway)
    assert (answer.status_code, answer.json()["code"]) == (409, "release_refused")
    assert registry.state("intent").traffic == {}
    pod.asked.clear()
    found = (await begin(gateway, force=True)).json()
    assert (found["change"]["forced"], found["comparison"]["not_compared"], pod.asked) == (
        *(True, "its start was forced", []),
    )


async def test_refused_before_a_pod_is_asked(served: tuple[Running, AdminPod]) -> None:
    """What cannot be a rollout is refused with what is wrong, and no pod loads anything for it."""
    gateway, pod = served
    for body, code, says in (
        ({"steps": [50, 5]}, "invalid_input", "growing percents"),
        ({"guards": {"error": None}}, "invalid_input", "there is no guard 'error'"),
        ({"version": "1.0"}, "state_conflict", "at 1.0 already"),
        ({"if_currently": "0.9"}, "state_conflict", "not at 0.9"),
        ({"version": "9"}, "version_not_found", "no version '9'"),
        ({"stepz": 1}, "invalid_request", "stepz"),
    ):
        answer = await begin(gateway, **body)
        problem = answer.json()
        assert (problem["code"], says in json.dumps(problem)) == (code, True), problem
    answer = await gateway.admin.post(PATH, json={"version": "1.1"}, params={"rate": 5})
    assert "plan=true" in answer.json()["detail"]
    assert pod.asked == []
    answer = await gateway.admin.get(PATH)
    assert (answer.status_code, answer.json()["code"]) == (404, "rollout_not_found")


async def test_asked_twice_under_one_name(registry: Registry, served: tuple[Running, AdminPod]) -> None:
    """A start whose answer was lost, asked for again under its name, is not made again and asks no pod."""
    gateway, pod = served
    name = {"idempotency-key": "once"}
    first = await gateway.admin.post(PATH, json={"version": "1.1"}, headers=name)
    pod.asked.clear()
    again = await gateway.admin.post(PATH, json={"version": "1.1"}, headers=name)
    assert again.json()["change"] == first.json()["change"]
    assert (pod.asked, len(registry.state("intent").history)) == ([], 2)


async def test_the_plan_starts_nothing(registry: Registry, served: tuple[Running, AdminPod]) -> None:
    """A plan says how long each step takes at a rate, asks no pod and changes nothing."""
    gateway, pod = served
    answer = await gateway.admin.post(PATH, json={"version": "1.1"}, params={"plan": "true", "rate": 100})
    found = answer.json()
    assert (answer.status_code, found["rollout"], found["base"]) == (200, None, "1.0")
    assert [step["percent"] for step in found["plan"]["steps"]] == [1, 5, 25, 100]
    assert found["plan"]["rate_per_s"] == 100
    assert (pod.asked, registry.state("intent").traffic) == ([], {})


async def test_a_plan_by_scores_has_one_percent(served: tuple[Running, AdminPod]) -> None:
    """Nobody knows how long it takes, and what is between floor and cap, scores say."""
    gateway, _ = served
    body = {"version": "1.1", "policy": "thompson", "floor": 5, "cap": 90, "steps": [20]}
    answer = await gateway.admin.post(PATH, json=body, params={"plan": "true", "rate": 100})
    assert answer.status_code == 200, answer.text
    plan = answer.json()["plan"]
    assert [step["percent"] for step in plan["steps"]] == [20]
    assert (plan["policy"], plan["expected_s"]) == ("thompson", None)
    assert "between 5 and 90" in plan["notes"][0]


async def test_a_person_steers(registry: Registry, run: Run) -> None:
    """Pause, resume, abort and promote do what they say, in one line, and the status tells all of it."""
    document(await run("start", "intent", "1.1", "--rate", "100", "--json"))
    assert (await run("pause", "intent", "--note", "lunch")).out == (
        "the rollout of 1.1 is paused at 1 % of intent PROD\n"
    )
    said = (await run("status", "intent")).out
    assert "intent PROD: 1.0 → 1.1, PAUSED: step 1 of 4, 1 % of requests" in said
    assert "why      lunch" in said
    assert "marway rollout resume|promote|abort intent --label PROD" in said
    assert (await run("resume", "intent")).out == "the rollout of 1.1 goes on at 1 % of intent PROD\n"
    assert (await run("abort", "intent", "--note", "no")).out == (
        "the rollout of 1.1 is aborted: intent PROD stays at 1.0\n"
    )
    status = document(await run("status", "intent", "--json"))
    assert (status["state"], status["reason"], status["steps"], status["percent"]) == (
        *("aborted", "no", [1, 5, 25, 100], 0),
    )
    assert [move["action"] for move in status["changes"]] == ["start", "pause", "resume", "abort"]
    # as it stood when a person ended it; this pod does not say what memory the candidate takes
    assert set(status["evidence"]) | {"memory"} == set(status["guards"])
    said = await run("abort", "intent")
    assert (said.code, "no rollout of intent to PROD runs" in said.err) == (1, True)
    document(await run("start", "intent", "1.1", "--rate", "100", "--json"))
    assert (await run("promote", "intent")).out == "intent PROD → 1.1 (was 1.0)\n"
    assert registry.state("intent").labels == {"PROD": "1.1"}
    watched = await run("watch", "intent")
    assert watched.code == 0
    assert watched.out.endswith("promoted: PROD is at 1.1\n")


async def test_what_start_says(run: Run) -> None:
    """`start` says first what it will do, how long that takes and what it would notice; --plan stops there."""
    said = await run("start", "intent", "1.1", "--rate", "100", "--plan", "--steps", "1,50", "--guards", "errors,shape")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "rollout of intent 1.1 to PROD, which is at 1.0; at 100 requests/s:"
    assert lines[1].startswith("  step 1  1 % of requests, about ")
    assert lines[3] == "  step 3  100 %: PROD moves to 1.1"
    assert [line.split()[0] for line in lines if "is too much" in line] == ["errors", "shape"]
    assert not any(line.startswith("started") for line in lines)
    said = await run("start", "intent", "1.1", "--rate", "100", "--step-time", "2m", "--shadow", "50")
    assert "started: intent 1.1 gets 1 % of PROD" in said.out
    assert "a gave its 3 golden answers" in said.out
    assert "compared 1.1 with 1.0 by pod a, 3 golden inputs of 1.0:" in said.out
    assert said.out.endswith("follow it with: marway rollout watch intent --label PROD\n")


async def test_by_scores(registry: Registry, run: Run) -> None:
    """A rollout by scores says from which percent on and between which ones, and is started so."""
    flags = ("--policy", "thompson", "--floor", "5", "--cap", "95", "--steps", "10", "--step-time", "60s")
    said = await run("start", "intent", "1.1", "--rate", "100", *flags)
    assert said.code == 0, said.err
    assert "  starts with 10 % of requests" in said.out
    assert "between 5 and 95" in said.out
    traffic = registry.state("intent").traffic["PROD"]
    assert (traffic.policy, traffic.percent, traffic.floor, traffic.cap) == ("thompson", 10, 5, 95)


async def test_usage(run: Run) -> None:
    """What cannot be meant is refused with the flag's name before anything is asked."""
    for flags, says in (
        (("--steps", "one"), "--steps"),
        (("--step-time", "60"), "--step-time"),
        (("--guards", "errors=few"), "--guards"),
    ):
        said = await run("start", "intent", "1.1", *flags)
        assert (said.code, says in said.err) == (2, True), said


async def test_without_a_gateway(registry: Registry, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The registry alone starts a proved candidate and is steered; how guards stand, a gateway is to be asked."""
    at = ("--registry", registry.url)
    said = await run("start", "intent", "1.1", *at)
    assert (said.code, "no pod has loaded intent 1.1" in said.err) == (1, True)
    said = await run("start", "intent", "1.1", "--plan", *at)
    assert (said.code, "give --gateway" in said.err) == (1, True)
    found = document(await run("start", "intent", "1.1", "--force", "--json", *at))
    assert found["rollout"]["percent"] == 1
    assert "a gateway says how the guards stand" in (await run("status", "intent", *at)).out
    assert (await run("pause", "intent", *at)).code == 0
    watched = await run("watch", "intent", *at)
    assert (watched.code, "PAUSED" in watched.out) == (1, True)
    assert (await run("abort", "intent", *at)).code == 0


async def test_the_evidence_of_one_that_ended(registry: Registry, run: Run) -> None:
    """What a verdict was decided on is shown once the rollout is over."""

    status = document(await run("start", "intent", "1.1", "--rate", "100", "--json"))["rollout"]
    guard = GuardEvidence(verdict="worse", counts={"pairs": 120}, estimate=0.3, bound=0.4, limit=0.01, evidence=1.2)
    report = RolloutReport(
        op_id="verdict",
        at=utc_now(),
        action="roll_back",
        step=0,
        percent=1,
        step_s=4.5,
        evidence={"errors": guard},
        processes=1,
    )
    registry.store_report("intent", status["rollout"], report)
    verdict: dict[str, Any] = {"guard": "errors", "reason": "errors is worse", "by": "gateway", "op_id": "verdict"}
    registry.roll_back_rollout("intent", rollout=status["rollout"], step=0, **verdict)
    found = document(await run("status", "intent", "--json"))
    assert (found["state"], found["guard"], found["step_s"]) == ("rolled_back", "errors", 4.5)
    assert found["evidence"]["errors"]["verdict"] == "worse"
    said = (await run("status", "intent")).out
    assert "ROLLED BACK: PROD stays at 1.0" in said
    assert "WORSE" in said
    assert utc_now().isoformat()[:10] in said
