"""A candidate that is wrong more often is found by feedback: over a real gateway, a real sidecar and the files kept."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gateway.fakes import Running, running
from marway.registry import Registry
from marway.registry.encoding import decode
from marway.wire.envelope import Answer, Row
from marway_gateway.settings import PodAddress
from marway_observations.rollouts.results import RolloutQuality, quality_key
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish

RULE = {"kind": "classification", "prediction": "label"}
CLASSES = ("play", "stop", "skip")


async def answer(model: ServedModel, row: Row) -> Answer:
    """The base is wrong about 8 of a hundred inputs; the candidate about 40, others among them."""
    number = int(json.loads(row.parts[0].value)["n"])
    wrong = number % 100 < 8 if model.version == "1.0" else 2 <= number % 100 < 42
    said = CLASSES[(number // 100 + wrong) % 3]
    return Answer(200, json.dumps({"label": said}).encode(), "json")


async def ask(gateway: Running, number: int) -> dict[str, Any]:
    """Ask once, and return the feedback on it."""
    reply = await gateway.predict("/predict/intent", json.dumps({"n": number}).encode())
    assert reply.status_code == 200, reply.text
    return {"prediction_id": reply.headers["x-prediction-id"], "truth": CLASSES[(number // 100) % 3]}


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the background duties begin at once, and look often."""
    monkeypatch.setattr("marway_gateway.duties.rollout_quality.INTERVAL_S", 0.5)
    monkeypatch.setattr("marway_gateway.duties.opening._FIRST_S", 0.0)


@pytest.mark.extended  # ten seconds of traffic and looks; test_looking.py and test_quality_guard.py have its parts
async def test_a_candidate_that_is_wrong_more_often_is_rolled_back(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truth named by the caller's prediction id is held against the copy's answer; the guard rolls it back."""
    quick(monkeypatch)
    for version, label in (("1.0", "PROD"), ("1.1", None)):
        publish(registry, tmp_path, version=version, label=label, serving={"observe": "bodies", "quality": [RULE]})
    draw = random.Random(20)
    async with (
        serving(registry, tmp_path, server=FakeServer(predict_with=answer)) as pod,
        running(PodAddress("pod-0", pod.url), registry=registry) as gateway,
    ):
        await ask(gateway, 1)
        body = {"version": "1.1", "steps": [1], "guards": {"quality": None}, "step_time_s": 300, "force": True}
        started = await gateway.admin.post("/models/intent/labels/PROD/rollout", json=body)
        assert started.status_code == 200, started.text
        rollout = registry.state("intent").traffic["PROD"].rollout
        assert rollout is not None
        async with asyncio.timeout(60):
            while "PROD" in registry.state("intent").traffic:
                asked = [asyncio.create_task(ask(gateway, draw.randrange(30_000))) for _ in range(20)]
                given = [await each for each in asked]
                assert (await gateway.client.post("/feedback", json=given)).status_code == 202
    newest = registry.state("intent").history[-1].rollout
    assert newest is not None
    assert (newest.action, newest.guard) == ("roll_back", "quality")
    key = quality_key("intent", rollout)
    found = decode(RolloutQuality, registry.store.get(key).data, source=key)
    assert found.guard is not None
    counted = found.guard.steps[0].pairs
    assert counted[8] > counted[0] * 0.2


@pytest.mark.extended  # some twelve seconds, as the first five tell nothing; test_rollout_quality.py has its parts
async def test_what_callers_like_gets_more_requests(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate whose answers have the better scores gets as many requests as it may; a person promotes it."""
    quick(monkeypatch)
    for version, label in (("1.0", "PROD"), ("1.1", None)):
        publish(registry, tmp_path, version=version, label=label)
    async with (
        serving(registry, tmp_path, server=FakeServer(predict_with=answer)) as pod,
        running(PodAddress("pod-0", pod.url), registry=registry) as gateway,
    ):
        asked = {"policy": "thompson", "floor": 10, "cap": 80, "steps": [30], "step_time_s": 10}
        body = {"version": "1.1", "guards": {"errors": None}, "shadow_percent": 0, "force": True, **asked}
        started = await gateway.admin.post("/models/intent/labels/PROD/rollout", json=body)
        assert started.status_code == 200, started.text

        async def scored(number: int) -> dict[str, Any]:
            reply = await gateway.predict("/predict/intent", json.dumps({"n": number}).encode())
            score = 0.9 if reply.headers["x-marway-traffic"] == "candidate" else 0.5
            return {"prediction_id": reply.headers["x-prediction-id"], "score": score}

        async with asyncio.timeout(60):
            while registry.state("intent").traffic["PROD"].percent == 30:
                given = [await scored(number) for number in range(10)]
                assert (await gateway.client.post("/feedback", json=given)).status_code == 202
                await asyncio.sleep(0.1)
        assert registry.state("intent").traffic["PROD"].percent == 80
        promoted = await gateway.admin.post("/models/intent/labels/PROD/rollout/promote")
        assert promoted.status_code == 200, promoted.text
    assert registry.state("intent").labels["PROD"] == "1.1"
    told = [entry.rollout.action for entry in registry.state("intent").history if entry.rollout is not None]
    assert told == ["start", "weights", "promote"]
