"""Manifests of other archivers."""

from __future__ import annotations

import json

import pytest

from marway.errors import InvalidArchive
from marway_archiver.contents.manifest import encode_manifest, parse_manifest

MODEL_ARCHIVERS = {
    "runtime": "python",
    "model": {"modelName": "old", "handler": "service:handle"},
    "modelServerVersion": "1.0",
    "implementationVersion": "1.0",
    "specificationVersion": "1.0",
}


def test_an_archive_of_multi_model_server_is_version_1_0() -> None:
    """Its archiver writes no version; what it writes beside is kept, and a version that is there counts."""
    manifest = parse_manifest(json.dumps(MODEL_ARCHIVERS).encode())
    assert manifest.model.model_version == "1.0"
    written = json.loads(encode_manifest(manifest))
    assert (written["model"]["modelVersion"], written["modelServerVersion"]) == ("1.0", "1.0")
    said = {**MODEL_ARCHIVERS, "model": {**MODEL_ARCHIVERS["model"], "modelVersion": "2.0"}}  # type: ignore[dict-item]
    assert parse_manifest(json.dumps(said).encode()).model.model_version == "2.0"


def test_any_other_archive_must_say_its_version() -> None:
    """torch-model-archiver always writes one."""
    manifest = {name: value for name, value in MODEL_ARCHIVERS.items() if name != "specificationVersion"}
    with pytest.raises(InvalidArchive, match=r"model\.modelVersion: Field required"):
        parse_manifest(json.dumps(manifest).encode())
