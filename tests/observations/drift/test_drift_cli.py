"""`marway drift` in a terminal and for programs."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from marway.features.collecting import Rows
from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from support.in_process import Marway
from support.observations import observation, write_observations
from support.registry import publisher


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A registry with loans 1.0 under PROD and 2.0 under TEST, and a day's predictions of older people."""
    found = DirectoryStore(tmp_path / "registry")
    registry = Registry(found)
    registry.create()
    draw, rows = random.Random(0), Rows()
    for _ in range(500):
        rows.add({"input": [{"age": draw.gauss(40, 10)}]})
    publish = publisher(registry, tmp_path)
    publish("loans", "1.0", training={"features": rows.summarize()})
    publish("loans", "2.0", serving={"drift": {"against": "golden", "window": "1h"}})
    registry.release("loans", "1.0", label="PROD", by="test")
    registry.release("loans", "2.0", label="TEST", by="test")
    at = utc_now() - timedelta(hours=5)
    write_observations(
        found,
        "loans",
        [observation({}, input={"age": draw.gauss(60, 10), "new": 1}, version="1.0", at=at) for _ in range(300)],
    )
    return found


@pytest.fixture
def marway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: DirectoryStore) -> Marway:
    monkeypatch.setenv("MARWAY_REGISTRY", store.url)
    return Marway(monkeypatch, capsys)


def documents(marway: Marway, *arguments: str) -> list[dict[str, Any]]:
    said = marway("drift", "loans", *arguments, "--json")
    found: list[dict[str, Any]] = json.loads(said.out)
    return found


def test_people_see_what_moved(marway: Marway) -> None:
    """Each version of a label has a line, and a table of its fields, the farthest first."""
    said = marway("drift", "loans")
    lines = said.out.splitlines()
    assert lines[0].startswith("loans 1.0 against training, ")
    assert lines[0].endswith(": 1 of 1 fields drifted; 300 of 300 predictions looked at")
    assert "input.age ← drifted" in lines[2]
    assert "median " in lines[2]
    assert lines[3] == "fields that the reference does not have: input.new"
    assert lines[5].startswith("loans 2.0 against golden, ")
    assert "nothing can be said: 0 predictions" in lines[5]


def test_programs_get_one_document(marway: Marway) -> None:
    """A list of versions with their fields; flags go over what the version's rule says."""
    one, two = documents(marway)
    assert (one["version"], one["status"], one["fields"][0]["field"]) == ("1.0", "drifted", "input.age")
    assert (two["version"], two["status"], two["against"]) == ("2.0", "too_few", "golden")
    (only,) = documents(marway, "--version", "1.0", "--window", "1h")
    assert only["status"] == "too_few"
    (earlier,) = documents(marway, "--version", "1.0", "--against", "7d")
    assert earlier["status"] == "no_reference"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "no model"),
        (("loans", "--version", "9"), "has no version"),
        (("loans", "--against", "soon"), "is no time"),
        (("loans", "--against", "1h"), "would overlap"),
        (("loans", "--window", "-1h"), "is no time"),
    ],
)
def test_what_cannot_be_meant_is_refused(marway: Marway, arguments: tuple[str, ...], says: str) -> None:
    """A slip ends with one line that says what is wrong."""
    said = marway("drift", *arguments)
    assert said.code == 1
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_a_version_is_named_where_no_label_points_at_one(marway: Marway, store: DirectoryStore, tmp_path: Path) -> None:
    """Without labels it is asked which version is meant."""
    publisher(Registry(store), tmp_path)("idle", "1.0")
    assert "say which with --version" in marway("drift", "idle").err
