"""A bundle for TensorFlow Serving, published and served by a real sidecar, with the stand-in as the server."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_archiver import publish_archive
from support.tensorflow_serving import StandIn, saved_model, write_bundle
from support.torchserve import sidecar

# Extended: tests/sidecar/backends/test_tensorflow_serving.py covers the backend, and other tests the sidecar around it.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]


def test_a_bundle_is_served(tmp_path: Path) -> None:
    """One version is published, loaded, asked plainly and with tensors, lost with its server, and served again."""
    model = saved_model("echo", {"x": ("DT_FLOAT", [-1, 2])})
    bundle = write_bundle(tmp_path / "flowers.bundle", {"saved_model.pb": model}, name="flowers", version="2.0")
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    record, _ = publish_archive(bundle, registry=registry.url, create_registry=True)
    assert (record.backend, record.archive.kind) == ("tensorflow-serving", "bundle")
    with StandIn() as running:
        settings = {"tensorflow_serving_grpc": running.grpc, "tensorflow_serving_models": tmp_path / "models"}
        arguments = ("--backend", "tensorflow-serving", "--archive-store", str(tmp_path / "store"))
        with (
            sidecar(tmp_path, registry.url, *arguments, "--runtime-dir", str(tmp_path), **settings) as url,
            httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
        ):
            assert client.post("/predict/flowers/2.0", json=[1, 2]).json() == [1.0, 2.0]
            x = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
            answer = client.post("/predict/flowers/2.0", json={"id": "a", "inputs": [x]}).json()
            assert answer == {"model_name": "flowers", "model_version": "2.0", "id": "a", "outputs": [x]}
            refused = client.post("/predict/flowers/2.0", json={"inputs": [{**x, "datatype": "INT32"}]})
            assert (refused.status_code, "to be DT_FLOAT" in json.dumps(refused.json())) == (400, True)
            running.kill()
            running.start()
            assert client.post("/predict/flowers/2.0", json=[3, 4]).json() == [3.0, 4.0]
            assert client.post("/models/flowers/2.0/unload").is_success
            assert list((tmp_path / "models").glob("mv_*")) == []
