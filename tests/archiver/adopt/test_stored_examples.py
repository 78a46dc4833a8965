"""A source taken over again, with and without requests: versions never change, so their golden examples stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marway.answers.difference import golden_of
from marway.errors import InvalidArchive
from marway.registry import Registry, open_registry
from marway_archiver.adopt import adopting
from marway_archiver.adopt.adopting import Terms, adopt
from marway_archiver.adopt.found import Endpoint, Found, FoundModel
from marway_archiver.archives import check_archive
from marway_archiver.proving.examples import Example
from support.old_servers.models import TRITON_CONFIG, TRITON_MODEL
from support.torchserve import archive

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
    assert first.outcome == "published", first.problem
    assert golden_of(registry, first.record) is not None
    again = taken(found, registry)
    assert (again.outcome, again.problem, again.messages) == ("known", None, ())
    other = taken(found, registry, Example(REQUEST, OUTPUTS), Example({**REQUEST, "id": "2"}, OUTPUTS))
    assert (other.outcome, other.problem) == ("known", None)
    assert "published before with 1 golden example, and keeps these" in other.messages[0]
    assert first.record == again.record == other.record
    (stored,) = (tmp_path / "registry").rglob(f"*{first.record.archive.sha256}*.bundle")
    stored.unlink()
    assert "has no whole archive" in taken(found, registry).problem


def test_examples_that_a_handler_fails_do_not_keep_it_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose handler does not answer what clients sent is published without, and that is said."""
    publish, tried = adopting.publish_archive, []

    def refusing(path: Path, **more: Any) -> Any:
        tried.append(check_archive(path).examples)
        if tried[-1]:  # as the proof does, which takes seconds
            raise InvalidArchive("example 1 fails: KeyError: 'text'")
        return publish(path, **more)

    monkeypatch.setattr(adopting, "publish_archive", refusing)
    path = archive(tmp_path / "store", "m", "def handle(data, context):\n    return data\n")
    model = FoundModel("m", "1.0", Endpoint("torchserve", "m"), archive=path)
    registry = open_registry((tmp_path / "registry").as_uri())
    terms = Terms(create_registry=True, examples={"m/1.0": (Example("hello"),)})
    (adopted,) = adopt(Found("torchserve", "store", (model,)), registry, terms).adopted
    assert (adopted.outcome, adopted.problem, len(tried)) == ("published", None, 2)
    assert any("does not answer its clients' requests: example 1 fails" in each for each in adopted.messages)
