"""Bundles published: what the record says of them, what is refused, and that they are found again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from marway.answers.difference import golden_of
from marway.bundles import read_bundle
from marway.errors import InvalidArchive, InvalidInput, InvalidRecord, MarwayError
from marway.objects import DirectoryStore
from marway.records import TensorSpec, VersionRecord
from marway.registry import Registry
from marway_archiver import Example, pack_bundle, publish, publish_archive, publish_bundle

CONFIG = b"""\
platform: "tensorflow_savedmodel"
input { name: "x" data_type: TYPE_FP32 dims: 4 }
model_transaction_policy { decoupled: true }
"""
EXAMPLE = Example("one", "two")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    registry.create()
    return registry


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_bytes(CONFIG)
    (directory / "1/model.savedmodel").write_bytes(b"weights")
    return directory


def published(registry: Registry, directory: Path | None, **more: Any) -> VersionRecord:
    given: dict[str, Any] = {"model_name": "m", "version": "1.0", "backend": "open-inference"}
    return publish_bundle(**given | {"registry": registry, "directory": directory, "examples": [EXAMPLE]} | more)


def packed(directory: Path, out: Path, **more: Any) -> Path:
    given: dict[str, Any] = {"model_name": "m", "version": "1.0", "backend": "open-inference"}
    given |= {"directory": directory, "export_path": out, "golden_file": out / "m.golden.json"}
    return pack_bundle(**given | more).path


def test_the_record_says_what_the_bundle_does(registry: Registry, directory: Path) -> None:
    """Backend, tensors, framework, streams and golden answers come from the bundle; there is no handler."""
    record = published(registry, directory, tolerance=0.01)
    assert registry.record("m", "1.0") == record
    assert (record.backend, record.handler, record.archive.kind) == ("open-inference", "", "bundle")
    assert record.signature.inputs == (TensorSpec(name="x", datatype="FP32", shape=(4,)),)
    assert record.framework == "tensorflow"
    assert (record.serving.streaming, record.serving.max_batch_rows) == (True, 1)
    golden = golden_of(registry, record)
    assert golden is not None
    assert (golden.source, golden.tolerance.relative) == ("given", 0.01)
    assert [*registry._store.keys("bundles/")] == [f"bundles/sha256/{record.archive.sha256}.bundle"]
    assert [*registry._store.keys("archives/")] == []
    with registry.open_archive(record.archive) as source:
        assert source.read(4) == b"PK\3\4"
    assert list(registry.proofs(record.archive.sha256)) == []


def test_what_its_publisher_says_comes_first(registry: Registry, directory: Path) -> None:
    """Facts of the record stand over what the bundle tells, and rows are batched where that is asked for."""
    signature = {"inputs": [{"name": "y", "datatype": "INT8", "shape": [1]}]}
    facts = {"framework": "keras", "signature": signature, "serving": {"max_batch_rows": 8}, "id": "run-7"}
    record = published(registry, directory, record=facts, engine="triton")
    assert record.framework == "keras"
    assert record.signature.inputs[0].name == "y"
    assert (record.id, record.serving.max_batch_rows, record.serving.engine) == ("run-7", 8, "triton")


def test_a_file_is_published_as_it_is(registry: Registry, directory: Path, tmp_path: Path) -> None:
    """The bytes of `marway pack` and the answers beside them; again is the same version."""
    path = packed(directory, tmp_path, examples=[EXAMPLE])
    record, repacked = publish_archive(path, registry=registry)
    assert not repacked
    with registry.open_archive(record.archive) as source:
        assert source.read() == path.read_bytes()
    assert publish_archive(path, registry=registry, backend="open-inference")[0] == record
    (tmp_path / "m.golden.json").unlink()
    assert publish_archive(path, registry=registry)[0] == record  # its answers are in the registry
    assert published(registry, directory) == record


def test_other_bytes_are_refused(registry: Registry, directory: Path) -> None:
    """A version never changes."""
    published(registry, directory)
    (directory / "1/model.savedmodel").write_bytes(b"others")
    with pytest.raises(MarwayError, match="exists with other bytes"):
        published(registry, directory)


def test_without_examples_a_warning_says_so(
    registry: Registry, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing shows then that the server answers as it should."""
    caplog.set_level(logging.WARNING)
    assert published(registry, directory, examples=()).golden_sha256 is None
    assert "there are no golden examples: nothing will show that the server answers" in caplog.text


def test_a_server_that_has_it_already_needs_no_directory(registry: Registry, tmp_path: Path) -> None:
    """The record is of an empty bundle, which says what the server calls the model."""
    record = published(registry, None, server_model="densenet_onnx")
    with registry.open_archive(record.archive) as source:
        (tmp_path / "back.bundle").write_bytes(source.read())
    assert read_bundle(tmp_path / "back.bundle").server_model == "densenet_onnx"


REFUSED: dict[str, tuple[dict[str, Any], type[MarwayError], str]] = {
    "another backend": ({"backend": "http"}, InvalidRecord, "packed for the backend open-inference, and http is asked"),
    "one of .mar": ({"record": {"backend": "mms"}}, InvalidRecord, "and mms is asked for"),
    "an engine of .mar": ({"engine": "native"}, InvalidInput, "engine native: its pods serve .mar archives"),
    "locks": ({"lock_for": ["3.11/linux-x86_64"]}, InvalidInput, "--lock-for: a bundle has no requirements"),
    "no locks": ({"lock": False}, InvalidInput, "--no-lock: a bundle has no requirements"),
    "its answers are gone": ({}, InvalidArchive, "carries golden examples, and the answers to them are not there"),
    "answers of another": ({"golden": "other.json"}, InvalidArchive, "is of another archive"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused(registry: Registry, directory: Path, tmp_path: Path, what: str) -> None:
    """In one sentence, and nothing is stored."""
    more, error, message = REFUSED[what]
    path = packed(directory, tmp_path, examples=[EXAMPLE])
    document = json.loads((tmp_path / "m.golden.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(document | {"archive_sha256": "0" * 64}))
    (tmp_path / "m.golden.json").unlink()
    if "golden" in more:
        more = more | {"golden": tmp_path / more["golden"]}
    with pytest.raises(error) as caught:
        publish_archive(path, registry=registry, **more)
    assert message in caught.value.message
    assert list(registry.models()) == []
    assert [*registry._store.keys("bundles/")] == []


@pytest.mark.parametrize("how", ["file", "name"])
def test_a_damaged_one_is_refused(registry: Registry, directory: Path, tmp_path: Path, how: str) -> None:
    """Also one that no longer begins as a bundle does, by its name."""
    path = packed(directory, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-9] if how == "file" else b"not" + data)
    with pytest.raises(InvalidArchive, match=r"m\.bundle: "):
        publish_archive(path, registry=registry)


def test_a_mar_is_for_no_server_of_bundles(registry: Registry, tmp_path: Path) -> None:
    """And its engine is none of theirs."""
    (tmp_path / "handler.py").write_text("def handle(data, context):\n    return data\n")
    given: dict[str, Any] = {"model_name": "m", "version": "1", "handler": str(tmp_path / "handler.py")}
    with pytest.raises(InvalidArchive, match="open-inference read a bundle, which `marway pack --backend open-inf"):
        publish(**given, registry=registry, backend="open-inference")
    with pytest.raises(InvalidInput, match="engine http: its pods serve bundles, and this is"):
        publish(**given, registry=registry, engine="http")
