"""A source taken over again, with and without requests: versions never change, so their golden examples stay."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from marway.answers.difference import golden_of
from marway.registry import Registry, open_registry
from marway_archiver.adopt.adopting import Terms, adopt
from marway_archiver.adopt.found import Endpoint, Found, FoundModel
from marway_archiver.proving.examples import Example
from support.old_servers.models import TRITON_CONFIG, TRITON_MODEL

OUTPUTS = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [2.0]}]}
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}


@pytest.fixture
def found(tmp_path: Path) -> Found:
    directory = tmp_path / "doubler"
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(TRITON_CONFIG)
    (directory / "1" / "model.py").write_text(TRITON_MODEL)
    model = FoundModel("doubler", "1", Endpoint("v2", "doubler"), backend="open-inference", directory=directory)
    return Found("triton", str(tmp_path), (model,))


def taken(found: Found, registry: Registry, *examples: Example) -> Any:
    (adopted,) = adopt(found, registry, Terms(create_registry=True, examples={"doubler/1": examples})).adopted
    return adopted


def test_a_version_keeps_its_golden_examples(found: Found, tmp_path: Path) -> None:
    """Again without requests it is the same version, and again with others too, which is said."""
    registry = open_registry((tmp_path / "registry").as_uri())
    first = taken(found, registry, Example(REQUEST, OUTPUTS))
    assert first.fate == "published", first.problem
    assert golden_of(registry, first.record) is not None
    again = taken(found, registry)
    assert (again.fate, again.problem, again.messages) == ("known", None, ())
    other = taken(found, registry, Example(REQUEST, OUTPUTS), Example({**REQUEST, "id": "2"}, OUTPUTS))
    assert (other.fate, other.problem) == ("known", None)
    assert "published before with 1 golden example, and keeps these" in other.messages[0]
    assert first.record == again.record == other.record
    shutil.rmtree(tmp_path / "registry" / "archives")
    assert "has no whole archive" in taken(found, registry).problem
