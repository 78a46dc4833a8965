"""The backend and the engine of a version: what a publisher may say, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidRecord, InvalidReference
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver import publish


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(DirectoryStore(tmp_path / "registry"))


def published(registry: Registry, directory: Path, version: str = "1.0", **more: Any) -> VersionRecord:
    handler = directory / "handler.py"
    handler.write_text("def handle(data, context):\n    return [1 for _ in data or ()]\n")
    return publish(
        model_name="intent", version=version, handler=str(handler), registry=registry, create_registry=True, **more
    )


def test_it_is_in_the_record(registry: Registry, tmp_path: Path) -> None:
    """It comes from the argument or the record, and is torchserve where neither says it."""
    file = tmp_path / "record.json"
    file.write_text(json.dumps({"backend": "native"}))
    said: dict[str, dict[str, Any]] = {
        "1.0": {},
        "1.1": {"backend": "toy"},
        "1.2": {"record": file},
        "1.3": {"record": {"backend": "mms"}, "backend": "mms"},
    }
    for version, more in said.items():
        published(registry, tmp_path, version, **more)
    backends = [registry.record("intent", version).backend for version in said]
    assert backends == ["torchserve", "toy", "native", "mms"]


@pytest.mark.parametrize("name", ["", "Torch", "two words", "-x", "x" * 33, "a/b"])
@pytest.mark.parametrize("how", ["argument", "record"])
def test_a_malformed_one_is_refused(registry: Registry, tmp_path: Path, name: str, how: str) -> None:
    """What cannot be the name of a backend is refused with the form that it must have, and nothing is stored."""
    more: dict[str, Any] = {"backend": name} if how == "argument" else {"record": {"backend": name}}
    with pytest.raises(InvalidReference, match="cannot be a backend: use 1 to 32 lower-case letters"):
        published(registry, tmp_path, **more)
    assert not (tmp_path / "registry").exists()


def test_two_that_differ_are_refused(registry: Registry, tmp_path: Path) -> None:
    """An argument that says otherwise than the record is a mistake."""
    with pytest.raises(InvalidRecord, match="record says backend 'native', and 'mms' is asked for"):
        published(registry, tmp_path, record={"backend": "native"}, backend="mms")


def test_a_version_keeps_its_backend(registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same bytes published again for another backend change nothing, and a warning says so."""
    caplog.set_level(logging.WARNING)
    published(registry, tmp_path)
    assert published(registry, tmp_path, backend="native").backend == "torchserve"
    assert "was published before, for the backend torchserve: it stays so" in caplog.text


def test_an_engine_is_a_serving_setting(registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It comes from the argument or the record's serving settings; what was published before keeps what it has."""
    caplog.set_level(logging.WARNING)
    said: dict[str, dict[str, Any]] = {
        "1.0": {},
        "1.1": {"engine": "native"},
        "1.2": {"record": {"serving": {"engine": "native"}}},
        "1.3": {"record": {"serving": {"engine": "native", "pods": 2}}, "engine": "native"},
    }
    records = [published(registry, tmp_path, version, **more) for version, more in said.items()]
    assert [each.serving.engine for each in records] == [None, "native", "native", "native"]
    assert {each.backend for each in records} == {"torchserve"}
    assert published(registry, tmp_path, engine="native").serving.engine is None
    assert "was published before, for any engine: `marway serving` changes that" in caplog.text


def test_an_engine_that_cannot_be_is_refused(registry: Registry, tmp_path: Path) -> None:
    """A malformed name, or one that differs from the record's, stores nothing."""
    with pytest.raises(InvalidReference, match="'Java' cannot be an engine: use 1 to 32 lower-case letters"):
        published(registry, tmp_path, engine="Java")
    with pytest.raises(InvalidReference, match="'a b' cannot be an engine"):
        published(registry, tmp_path, record={"serving": {"engine": "a b"}})
    with pytest.raises(InvalidRecord, match="record says engine 'native', and 'torchserve' is asked for: say it once"):
        published(registry, tmp_path, record={"serving": {"engine": "native"}}, engine="torchserve")
    assert not (tmp_path / "registry").exists()
