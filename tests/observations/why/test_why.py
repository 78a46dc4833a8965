"""`marway why`: what was kept of an answer, joined with what the registry and its judges know."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from marway.records import Proof
from marway.registry import Registry
from marway_observations.store import open_observations
from support.graphs import publish_graph
from support.in_process import Marway
from support.observations import feedback, observation, write_feedback, write_observations
from support.registry import Publish

MS = timedelta(milliseconds=1)


@pytest.fixture
def marway(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], registry: Registry, tmp_path: Path
) -> Marway:
    """The command with its verbs of observations, the registry in its environment."""
    verbs = EntryPoint("observations", "marway_observations.cli:register", "marway.verbs")
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: [verbs])
    monkeypatch.setenv("MARWAY_REGISTRY", registry.url)
    monkeypatch.delenv("MARWAY_OBSERVATIONS", raising=False)
    monkeypatch.chdir(tmp_path)
    return Marway(monkeypatch, capsys)


@pytest.fixture
def asked(publish: Publish, registry: Registry) -> dict[str, Any]:
    """A prediction of intent 1.0 that PROD led to, before 1.1 was released, and feedback on it."""
    record = publish("intent", "1.0", id="run-7")
    publish("intent", "1.1")
    registry.release("intent", "1.0", by="ci", note="better")
    proof = {"kind": "pod", "server": "native", "duration_s": 0.2, "by": "pod a"}
    registry.prove(Proof(archive_sha256=record.archive.sha256, at=datetime.now(UTC), **proof))
    at = datetime.now(UTC)
    row = observation(
        at=at,
        version="1.0",
        request_id="r1",
        group_id="g1",
        duration_s=0.02,
        resolve_s=0.001,
        pod_s=0.015,
        queue_s=0.004,
        model_s=0.01,
        batch_rows=8,
        finite=True,
    )
    store = open_observations(registry.url)
    older = observation(at=at - 60 * MS, version="1.0", request_id="r1")
    write_observations(store, "intent", [older, row])
    write_observations(store, "other", [observation(at=at)])
    registry.release("intent", "1.1", by="ci")
    given = {"prediction_id": row["prediction_id"], "source": "app"}
    late = at + timedelta(days=3)
    write_feedback(
        store,
        [
            feedback("cat", at=at + 5 * MS, **given),
            feedback("dog", at=late, received_at=late, prediction_id=row["prediction_id"], source="labeller"),
            feedback(at=at + 6 * MS, group_id="g1", until=at + MS, correct=False),
            feedback("fish", at=late, prediction_id=older["prediction_id"]),
        ],
    )
    return row


def printed(marway: Marway, *arguments: str) -> Any:
    said = marway("why", *arguments, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_all_is_told(marway: Marway, asked: dict[str, Any], registry: Registry) -> None:
    """Version, digest, proof, the change of the label, the pod and its batch, times and feedback, late too."""
    told = printed(marway, asked["prediction_id"])
    record = registry.record("intent", "1.0")
    assert told["prediction"]["prediction_id"] == asked["prediction_id"]
    assert (told["version"]["id"], told["version"]["archive_sha256"]) == ("run-7", record.archive.sha256)
    assert [proof["by"] for proof in told["proofs"]] == ["pod a"]
    entry = told["label"]["entry"]
    assert (entry["to"], entry["by"], entry["note"], told["label"]["points_at"]) == ("1.0", "ci", "better", "1.1")
    assert told["traffic"]["role"] == "base"
    assert told["pod"] == {"pod": "pod-1", "attempts": 1, "cache": None, "batch_rows": 8}
    times = {name: round(value, 6) for name, value in told["timings"].items()}
    assert (times["queue_s"], times["model_s"], times["way_s"], times["gateway_s"]) == (0.004, 0.01, 0.001, 0.004)
    assert {name: told["feedback"]["counts"][name] for name in ("truth", "correct", "score")} == {
        "truth": "dog",
        "correct": False,
        "score": None,
    }
    assert [each["source"] for each in told["feedback"]["given"]] == ["labeller", None, "app"]
    assert told["replay"] is None


def test_for_people(marway: Marway, asked: dict[str, Any]) -> None:
    """The same in lines; by a request's id it is the newest of its predictions, and the others are named."""
    said = marway("why", "r1")
    assert said.code == 0, said.err
    for words in (
        "intent 1.0 (run-7)",
        "PROD → 1.0, released",
        "(change 1): better; now it points at 1.1",
        "pod-1, in a call of 8 rows",
        "20.0 ms (resolve 1.0, queue 4.0, model 10.0, way 1.0, gateway 4.0)",
        "all numbers finite",
        "truth dog, correct False (given 3 times by app, labeller)",
        "had 1 more predictions",
        "marway logs intent/1.0 --request r1",
    ):
        assert words in said.out, said.out


def test_deleted(marway: Marway, asked: dict[str, Any], registry: Registry) -> None:
    """A version that was deleted since is told as such; one that is not in the registry too."""
    registry.delete("intent", "1.0", by="ci", note="broken")
    assert "(broken)" in printed(marway, "r1")["version"]["deleted"]
    write_observations(open_observations(registry.url), "gone", [observation(request_id="r2", at=datetime.now(UTC))])
    told = printed(marway, "r2")
    assert "missing" in told["version"]
    assert (told["proofs"], told["label"]["entry"]) == ([], None)


def test_found_late(marway: Marway, asked: dict[str, Any], registry: Registry) -> None:
    """An id of Marway's says when it was made; a request's own is looked for as far back as is said."""
    old = datetime(2026, 1, 2, 12, tzinfo=UTC)
    row = observation(at=old, request_id="old", version="1.0")
    write_observations(open_observations(registry.url), "intent", [row])
    assert printed(marway, row["prediction_id"])["prediction"]["request_id"] == "old"
    refused = marway("why", "old")
    assert refused.code == 1
    assert "nothing was kept of 'old'" in refused.err
    assert "--since" in refused.err
    assert printed(marway, "old", "--since", "2026-01-01")["prediction"]["request_id"] == "old"


def test_not_replayed(marway: Marway, asked: dict[str, Any]) -> None:
    """Without bodies there is nothing to ask again: all is told all the same, and how to keep them."""
    said = marway("why", "r1", "--replay", "--json")
    assert said.code == 1
    assert json.loads(said.out)["replay"]["same"] is None
    assert "marway serving MODEL --set observe=bodies" in said.err


# Extended: it reads files of three models; what a prediction tells at all is above.
@pytest.mark.extended
def test_the_steps_of_a_graph(marway: Marway, publish: Publish, registry: Registry, tmp_path: Path) -> None:
    """A graph's prediction tells what its nodes asked, whichever model that was; theirs tell which graph asked."""
    for name in ("intent", "other"):
        publish(name, "1.0")
        registry.release(name, "1.0", by="ci")
    nodes = {name: {"kind": "model", "model": name} for name in ("intent", "other")}
    graph = {"nodes": {"all": {"kind": "sequence", "nodes": ["intent", "other"]}, **nodes}, "start": "all"}
    publish_graph(registry, tmp_path, graph)
    at = datetime.now(UTC)
    own = observation(at=at, version="1.0", request_id="r1", pod=None, duration_s=0.02)
    store = open_observations(registry.url)
    write_observations(store, "tour", [own])
    of_graph = {"version": "1.0", "request_id": "r1", "surface": "graph", "graph": own["prediction_id"]}
    first = observation(at=at - 9 * MS, node="intent", **of_graph)
    last = observation(at=at - 2 * MS, node="other", outcome="unavailable", error="overloaded", **of_graph)
    write_observations(store, "intent", [first, observation(at=at, version="1.0")])
    write_observations(store, "other", [last])
    told = printed(marway, own["prediction_id"])
    assert [(each["node"], each["model"], each["outcome"]) for each in told["steps"]] == [
        *(("intent", "intent", "ok"), ("other", "other", "unavailable")),
    ]
    assert (told["graph"], told["others"]) == (None, [])
    said = marway("why", "r1")
    assert f"other: other 1.0 (PROD): unavailable, overloaded in 10.0 ms; pod-1; {last['prediction_id']}" in said.out
    step = printed(marway, first["prediction_id"])
    assert (step["graph"], step["steps"]) == ({"prediction_id": own["prediction_id"], "node": "intent"}, None)
