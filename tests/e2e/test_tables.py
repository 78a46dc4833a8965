"""Stored embeddings and a light model: tables, a graph and a `.mar`, over `marway up` and real TorchServe."""

from __future__ import annotations

import json
import random
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest

from marway_archiver import publish
from support.cli import marway
from support.up import Up

# Extended: tests/gateway/graph/test_table_releases.py, with a pod in process.
pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(300)]
MODELS = Path(__file__).parent / "models"
SIZE = 32
GRAPH = """
nodes:
  all: {kind: sequence, nodes: [both, score]}
  both: {kind: sequence, nodes: [user, item]}
  user: {kind: lookup, table: users, key: request.user, into: user}
  item: {kind: lookup, table: items, key: request.item, into: item, pin: true}
  score: {kind: model, model: dot, timeout_s: 60}
start: all
output: "{score: nodes.score.score, age: nodes.score.age}"
"""


def rows(path: Path, keys: list[object], seed: int) -> dict[object, list[float]]:
    """Write a table of embeddings with eighths as numbers, whose products are exact; return it."""
    chance = random.Random(seed)
    vectors = {key: [chance.randrange(-8, 9) / 8 for _ in range(SIZE)] for key in keys}
    embedding = pa.array(list(vectors.values()), pa.list_(pa.float32(), SIZE))
    table = pa.table({"id": list(vectors), "embedding": embedding, "age": [float(seed)] * len(keys)})
    pa.parquet.write_table(table, path)
    return vectors


def test_a_light_model_is_asked_with_stored_embeddings(up: Up, client: httpx.Client, tmp_path: Path) -> None:
    """The graph's answers are those of the embeddings in the tables' versions: after a release of new users these
    change, with no new model, and an item's stay, as they are pinned.
    """

    def run(*words: str) -> str:
        done = marway(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def table(name: str, version: str, keys: list[object], seed: int, *more: str) -> dict[object, list[float]]:
        path = tmp_path / f"{name}.parquet"
        found = rows(path, keys, seed)
        words = ("table", "publish", str(path), "--model-name", name, "--version", version, "--key", "id")
        run(*words, "--registry", up.registry, *more)
        return found

    publish(model_name="dot", version="1.0", handler=str(MODELS / "ranker.py"), registry=up.registry, label="PROD")
    people: list[object] = list(range(0, 2000, 2))
    users = table("users", "1", people, 31, "--label", "PROD")
    items = table("items", "1", [f"item {number}" for number in range(500)], 1, "--label", "PROD")
    (tmp_path / "graph.yaml").write_text(GRAPH)
    run("graph", "publish", "graph.yaml", "--model-name", "ranked", "--version", "1", "--registry", up.registry)
    admin = up.ready["admin"]
    assert "ranked PROD → 1; gateway loaded it" in run("release", "ranked", "1", "--gateway", admin)

    def ask(user: object, item: object) -> httpx.Response:
        return client.post("/predict/ranked", json={"user": user, "item": item})

    def dot(user: object, item: object) -> float:
        return sum(a * b for a, b in zip(users[user], items[item], strict=True))

    for user, item in ((0, "item 0"), (1998, "item 499"), (64, "item 7")):
        answer = ask(user, item)
        assert answer.json() == {"score": dot(user, item), "age": 31.0}, answer.text
        assert "node-user;dur=" in answer.headers["server-timing"]
    missing = ask(0, "item 500")
    assert missing.status_code == 400
    assert "node item (items 1)" in missing.json()["detail"]
    assert 'there is no key "item 500"' in missing.json()["detail"]
    users = table("users", "2", people, 47)
    table("items", "2", list(items), 99, "--label", "PROD", "--force")
    assert "users PROD → 2 (was 1); gateway loaded it" in run("release", "users", "2", "--gateway", admin)
    while (answer := ask(64, "item 7").json())["age"] != 47.0:
        assert answer["age"] == 31.0
    assert answer["score"] == dot(64, "item 7")
    refused = marway("delete", "items", "1", "--gateway", admin, cwd=tmp_path)
    assert "items 1 is named by the graph ranked 1" in refused.stderr
    assert (
        json.loads(run("graph", "show", "ranked/1", "--registry", up.registry, "--json"))["nodes"]["item"]["selector"]
        == "1"
    )
