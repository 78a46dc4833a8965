"""A bundle for TensorFlow Serving, published and served by a real sidecar, with the stand-in as the server."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import grpc
import httpx
import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_archiver import publish_archive
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto.open_inference_pb2_grpc import GRPCInferenceServiceStub
from support.gateways import GatewayProcess
from support.tensorflow_serving import StandIn, saved_model, write_bundle
from support.torchserve import sidecar
from support.up import wait_until

# Extended: tests/sidecar/backends/test_tensorflow_serving.py covers the backend, and other tests the sidecar around it.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]


def test_every_surface_of_a_gateway_serves_it(tmp_path: Path) -> None:
    """Native, v1 and v2 requests for a version, in JSON, binary and gRPC, end in the server's tensors."""
    model = saved_model("echo", {"x": ("DT_FLOAT", [-1, 2])})
    bundle = write_bundle(tmp_path / "flowers.bundle", {"saved_model.pb": model}, name="flowers", version="2.0")
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish_archive(bundle, registry=registry.url, create_registry=True)
    with StandIn() as running:
        settings = {"tensorflow_serving_grpc": running.grpc, "tensorflow_serving_models": tmp_path / "models"}
        arguments = ("--backend", "tensorflow-serving", "--archive-store", str(tmp_path / "store"))
        with (
            sidecar(tmp_path, registry.url, *arguments, "--runtime-dir", str(tmp_path), **settings) as pod,
            GatewayProcess(tmp_path / "gateway", registry=registry.url, pods=[f"a={pod}"]) as gateway,
            httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as client,
        ):
            assert client.post("/predict/flowers/2.0", json=[1, 2]).json() == [1.0, 2.0]
            instances = client.post("/v1/models/flowers/versions/2.0:predict", json={"instances": [[1, 2], [3, 4]]})
            assert instances.json() == {"predictions": [[1.0, 2.0], [3.0, 4.0]]}
            path = "/v2/models/flowers/versions/2.0"
            x = {"name": "x", "datatype": "FP32", "shape": [2, 2]}
            said = client.post(f"{path}/infer", json={"inputs": [{**x, "data": [1, 2, 3, 4]}]})
            assert said.json()["outputs"] == [{**x, "data": [1, 2, 3, 4]}]
            data = struct.pack("<4f", 1, 2, 3, 4)
            binary = {**x, "parameters": {"binary_data_size": 16}}
            head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}}).encode()
            length = {"inference-header-content-length": str(len(head))}
            answer = client.post(f"{path}/infer", content=head + data, headers=length)
            assert answer.content.endswith(data)
            assert answer.headers["inference-header-content-length"] == str(len(answer.content) - 16)
            (spec,) = client.get(path).json()["inputs"]
            assert spec == {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
            with grpc.insecure_channel(gateway.addresses["grpc"]) as channel:
                asked = pb.ModelInferRequest(model_name="flowers", model_version="2.0", raw_input_contents=[data])
                asked.inputs.add(name="x", datatype="FP32", shape=[2, 2])
                told = GRPCInferenceServiceStub(channel).ModelInfer(asked, timeout=60)
            assert (told.model_version, list(told.raw_output_contents)) == ("2.0", [data])
            assert [(each.name, each.datatype, list(each.shape)) for each in told.outputs] == [("x", "FP32", [2, 2])]


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
            again = {"url": "/predict/flowers/2.0", "json": [3, 4]}
            wait_until(lambda: client.post(**again).is_success, timeout_s=30, what="it is served again")
            assert client.post(**again).json() == [3.0, 4.0]
            assert client.post("/models/flowers/2.0/unload").is_success
            assert list((tmp_path / "models").glob("mv_*")) == []
