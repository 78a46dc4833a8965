"""The standard inference protocols over real TorchServe, and the clients that others wrote for them."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import torch

import marway_handlers
from marway_archiver import publish
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.up import Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "examples" / "digits" / "samples"
ECHO = """
import torch

class Echo(torch.nn.Module):
    input_shape = (3,)
    input_dtype = "{dtype}"

    def forward(self, tensor):
        return tensor
"""
DTYPES = {"FP32": "float32", "FP16": "float16", "INT64": "int64", "BOOL": "bool"}
VALUES: dict[str, list[Any]] = {
    "FP32": [0.5, -2.25, 3.0, 0.10000000149011612, 3.4028234663852886e38, -0.0],
    "FP16": [0.5, -65504.0, 3.0, 0.0999755859375, 5.960464477539063e-08, 1.0],
    "INT64": [-(2**63), 2**63 - 1, 0, 1, 2**53 + 1, -1],
    "BOOL": [True, False, True, False, False, True],
}
CODES = {"FP32": "f", "FP16": "e", "INT64": "q", "BOOL": "?"}
LABELS = ["set_alarm", "tell_joke", "play_music"]
TEXTS = ["wake me up at six", "tell me a joke", "play some jazz"]


@pytest.fixture(scope="module")
def echoes(up: Up, tmp_path_factory: pytest.TempPathFactory) -> None:
    """For each datatype the shipped tensor handler with a model that gives back what it gets: `echo-FP32` and so on."""
    scratch = tmp_path_factory.mktemp("echo")
    handler = Path(marway_handlers.__file__).with_name("tensor.py")
    torch.save({}, scratch / "weights.pt")
    for datatype, dtype in DTYPES.items():
        model = scratch / datatype / "model.py"
        model.parent.mkdir()
        model.write_text(ECHO.format(dtype=dtype))
        tensor = {"datatype": datatype, "shape": [-1, 3]}
        publish(
            model_name=f"echo-{datatype}",
            version="1.0",
            handler=str(handler),
            model_file=str(model),
            serialized_file=str(scratch / "weights.pt"),
            registry=up.registry,
            label="PROD",
            record={"signature": {"inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}]}},
        )


@pytest.fixture(scope="module")
def stub(up: Up) -> Iterator[Any]:
    with grpc.insecure_channel(up.ready["grpc"]) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def infer(client: httpx.Client, model: str, *inputs: dict[str, Any], raw: bytes = b"", **more: Any) -> httpx.Response:
    """Send a v2 request; ``raw`` are its binary tensors."""
    head = json.dumps({"inputs": inputs, **more}).encode()
    headers = {"inference-header-content-length": str(len(head))} if raw else {}
    return client.post(f"/v2/models/{model}/infer", content=head + raw, headers=headers)


def told(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    """Return a v2 response's one output, and its binary data."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    (output,) = json.loads(answer.content[:length])["outputs"]
    return output, answer.content[length:]


def labels(output: dict[str, Any]) -> list[str]:
    return [json.loads(value)["label"] for value in output["data"]]


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.usefixtures("echoes")
def test_numbers_come_back_equal(client: httpx.Client, stub: Any, datatype: str) -> None:
    """Tensors of N rows reach the shipped tensor handler and come back equal: as JSON, as binary, and over gRPC."""
    values, model = VALUES[datatype], f"echo-{datatype}"
    data = struct.pack(f"<6{CODES[datatype]}", *values)
    described = {"name": "x", "datatype": datatype, "shape": [2, 3]}
    output, _ = told(infer(client, model, {**described, "data": [values[:3], values[3:]]}))
    assert output == {"name": "y", "datatype": datatype, "shape": [2, 3], "data": values}
    output, binary = told(
        infer(
            client,
            model,
            {**described, "parameters": {"binary_data_size": len(data)}},
            raw=data,
            parameters={"binary_data_output": True},
        )
    )
    assert (output["datatype"], output["shape"]) == (datatype, [2, 3])
    assert binary == data
    sent = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[2, 3])
    answer = stub.ModelInfer(
        pb.ModelInferRequest(model_name=model, inputs=[sent], raw_input_contents=[data]), timeout=60
    )
    assert list(answer.raw_output_contents) == [data]


@pytest.mark.usefixtures("echoes")
def test_bytes_of_numbers_come_back_equal(client: httpx.Client) -> None:
    """BYTES elements that hold a tensor, as text or as raw values, reach the tensor handler as rows."""
    rows = [[0.5, -2.25, 3.0], [1.0, 2.0, 3.0]]
    elements = [json.dumps(rows[0]).encode(), struct.pack("<3f", *rows[1])]
    data = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    described = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(data)}}
    refused = infer(client, "echo-FP32", described, raw=data)
    assert (refused.status_code, "the model takes FP32" in refused.text) == (400, True)
    for kind in ("instances", "inputs"):
        instances = [rows[0], {"b64": base64.b64encode(elements[1]).decode()}]
        answer = client.post("/v1/models/echo-FP32:predict", json={kind: instances})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"predictions" if kind == "instances" else "outputs": rows}


def test_texts_are_rows(client: httpx.Client, stub: Any) -> None:
    """Texts go to intent as N rows over v2 as JSON, binary and gRPC, and over v1, and are answered in their order."""
    described = {"name": "text", "datatype": "BYTES", "shape": [3]}
    output, _ = told(infer(client, "intent", {**described, "data": TEXTS}))
    assert (output["name"], output["shape"], labels(output)) == ("prediction", [3], LABELS)
    data = b"".join(struct.pack("<I", len(text)) + text.encode() for text in TEXTS)
    binary = {**described, "parameters": {"binary_data_size": len(data)}}
    output, _ = told(infer(client, "intent/versions/PROD", binary, raw=data))
    assert labels(output) == LABELS
    sent = pb.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[3])
    sent.contents.bytes_contents.extend(text.encode() for text in TEXTS)
    answer = stub.ModelInfer(pb.ModelInferRequest(model_name="intent", inputs=[sent]), timeout=60)
    assert [json.loads(value)["label"] for value in answer.outputs[0].contents.bytes_contents] == LABELS
    for path in ("intent", "intent/versions/1.0", "intent/labels/PROD"):
        predicted = client.post(f"/v1/models/{path}:predict", json={"instances": TEXTS})
        assert predicted.status_code == 200, predicted.text
        assert [value["label"] for value in predicted.json()["predictions"]] == LABELS


def test_pictures_are_rows(client: httpx.Client) -> None:
    """Pictures go to digits as FP32 tensors over v2, and as numbers or base64 PNG over v1."""
    numbers = [json.loads((SAMPLES / f"{digit}.json").read_text()) for digit in (0, 4, 7)]
    output, _ = told(
        infer(client, "digits", {"name": "image", "datatype": "FP32", "shape": [3, 8, 8], "data": numbers})
    )
    assert labels(output) == ["0", "4", "7"]
    png = base64.b64encode((SAMPLES / "7.png").read_bytes()).decode()
    instances = [numbers[0], {"b64": png}, {"image": numbers[1]}]
    predicted = client.post("/v1/models/digits:predict", json={"instances": instances})
    assert predicted.status_code == 200, predicted.text
    assert [value["label"] for value in predicted.json()["predictions"]] == ["0", "7", "4"]
    columns = client.post("/v1/models/digits:predict", json={"inputs": {"image": numbers}})
    assert [value["label"] for value in columns.json()["outputs"]] == ["0", "4", "7"]


def test_one_bad_row_is_named(client: httpx.Client) -> None:
    """A row that the handler refuses fails the request with its own status and words, in each protocol's form."""
    bad = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["fine", " "]}
    for refused in (
        infer(client, "intent", bad),
        client.post("/v1/models/intent:predict", json={"instances": bad["data"]}),
    ):
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("row 1: the text is empty")
    raised = client.post("/v1/models/probe:predict", json={"instances": ["fine", "boom", "fine"]})
    assert (raised.status_code, raised.json()) == (500, {"error": "row 1: ValueError: the input said boom"})


def test_models_that_cannot_explain_say_so(client: httpx.Client) -> None:
    """v1 and v2 give explanations of a handler that looks whether it is to explain, and refuse to pass predictions off
    as some; TorchServe's paths do as TorchServe does.
    """
    explained = client.post("/v1/models/probe:explain", json={"instances": ["explain"]})
    assert (explained.status_code, explained.json()) == (200, {"explanations": ['"True"']})
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": TEXTS[:2]}
    for refused in (
        client.post("/v1/models/intent:explain", json={"instances": TEXTS[:2]}),
        client.post("/v2/models/intent/explain", json={"inputs": [tensor]}),
    ):
        assert refused.status_code == 501, refused.text
        assert refused.json()["error"].startswith("the model has no explanations: its handler does not look")
    predicted = client.post("/explanations/intent", content=TEXTS[0], headers={"content-type": "text/plain"})
    assert (predicted.status_code, predicted.json()["label"]) == (200, LABELS[0])


def test_handlers_that_leave_out_their_insights(up: Up, client: httpx.Client) -> None:
    """A handler made of TorchServe's own that does not add `get_insights` has no explanations, on any path."""
    publish(
        model_name="uninsightful",
        version="1.0",
        handler=str(HERE / "models" / "no_insights.py"),
        registry=up.registry,
        label="PROD",
    )
    assert client.post("/v1/models/uninsightful:predict", json={"instances": [1]}).json() == {"predictions": [2]}
    for refused in (
        client.post("/v1/models/uninsightful:explain", json={"instances": [1]}),
        client.post("/explanations/uninsightful", json=1),
    ):
        assert (refused.status_code, "its handler has no `get_insights`" in refused.text) == (501, True), refused.text


def test_rows_are_what_rest_would_give(client: httpx.Client) -> None:
    """A row's handler sees its own content type, and the request's id."""
    answer = client.post(
        "/v1/models/probe:predict", json={"instances": ["a", [1], {"b64": "YQ=="}]}, headers={"x-request-id": "r-1"}
    )
    assert answer.status_code == 200, answer.text
    seen = [(row["type"], row["content_type"], row["model"]) for row in answer.json()["predictions"]]
    assert seen == [
        ("str", "text/plain; charset=utf-8", "probe"),
        ("list", "application/json", "probe"),
        ("bytearray", "application/octet-stream", "probe"),
    ]
    assert [row["request_id"] for row in answer.json()["predictions"]] == ["r-1/0", "r-1/1", "r-1/2"]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the clients of others, and with the protobuf and psutil that they want, older than ours."""
    directory = tmp_path_factory.mktemp("clients")
    pinned = HERE / "clients" / "requirements.txt"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", directory]
    subprocess.run([*install, "-r", pinned], check=True, timeout=280)
    return directory


def run(clients: Path, script: str, *arguments: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MARWAY_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, HERE / "clients" / script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment, "PYTHONPATH": str(clients)},
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.install
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("echoes")
def test_tritonclient(up: Up, clients: Path) -> None:
    """NVIDIA's client finds the server, reads metadata and infers over HTTP and gRPC, and loads on the admin port."""
    digits = [json.loads((SAMPLES / f"{digit}.json").read_text()) for digit in (0, 7)]
    http, admin = (up.ready[name].removeprefix("http://") for name in ("gateway", "admin"))
    said = run(clients, "triton.py", http, up.ready["grpc"], json.dumps(digits), admin)
    assert said["state"] == "READY"
    for over in ("http", "grpc"):
        heard = said[over]
        assert heard["live"]
        assert heard["ready"]
        assert heard["models"] == [True, True]
        assert heard["server"] == "marway"
        (tensor,) = heard["inputs"]
        assert (tensor["name"], tensor["datatype"], [int(side) for side in tensor["shape"]]) == ("text", "BYTES", [-1])
        assert heard["intent binary"][:2] == heard["intent json"][:2] == LABELS[:2]
        assert heard["id"] == "42"
        assert heard["digits"] == ["0", "7"]
        assert [heard[datatype] for datatype in DTYPES] == [True] * 4
        assert "row 1: the text is empty" in heard["refused"][1]
    assert said["http"]["refused"][0] == "400"
    assert said["grpc"]["refused"][0] == "StatusCode.INVALID_ARGUMENT"


@pytest.fixture(scope="module")
def simple(up: Up) -> None:
    """The models that Triton's examples ask for."""
    for name, handler, datatype, tensors in (
        ("simple", "simple", "INT32", 2),
        ("simple_string", "simple", "BYTES", 2),
        ("simple_identity", "identity", "BYTES", 1),
    ):
        inputs, outputs = (
            [{"name": f"{side}{index}", "datatype": datatype, "shape": [-1, 16]} for index in range(tensors)]
            for side in ("INPUT", "OUTPUT")
        )
        publish(
            model_name=name,
            version="1.0",
            handler=str(HERE / "models" / f"{handler}.py"),
            registry=up.registry,
            label="PROD",
            record={"signature": {"inputs": inputs, "outputs": outputs}},
        )


WORKS = {
    "infer": [[True, True]] * 2,
    "compressed": [[True, True]] * 2,
    "asynchronous": [[True, True]] * 2,
    "strings": [[True] * 5, [True] * 3],
    "health_metadata": [[True, True, True, False, "marway", "simple"]] * 2,
    "raw": ["play_music"],
    "empty_contents": True,
    "channel_options": [True, True],
    "aio": [True] * 4,
}
REFUSED = {
    "config": ("501", "UNIMPLEMENTED", "model configurations are not implemented here"),
    "statistics": ("501", "UNIMPLEMENTED", "statistics are not implemented here"),
    "all_statistics": ("501", "UNIMPLEMENTED", "statistics are not implemented here"),
    "trace": ("501", "UNIMPLEMENTED", "trace settings are not implemented here"),
    "logging": ("501", "UNIMPLEMENTED", "log settings are not implemented here"),
    "unknown_model": ("404", "NOT_FOUND", "there is no model 'wrong_model_name'"),
    "sequence": ("400", "INVALID_ARGUMENT", "the request has the parameter sequence_"),
    "string_sequence": ("400", "INVALID_ARGUMENT", "the request has the parameter sequence_"),
    "priority": ("400", "INVALID_ARGUMENT", "the request has the parameter priority"),
    "custom_parameter": ("400", "INVALID_ARGUMENT", "the request has the parameter 'temperature', which has no effect"),
    "shared_memory_input": ("400", "INVALID_ARGUMENT", "input 'INPUT0' has the parameter shared_memory_"),
    "shared_memory_output": ("400", "INVALID_ARGUMENT", " has the parameter shared_memory_"),
    "classes": ("400", "INVALID_ARGUMENT", " has the parameter classification"),
    "repository": ("404", "UNIMPLEMENTED", "the model repository is not on this port"),
}


@pytest.mark.install
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("simple")
def test_tritons_examples(up: Up, clients: Path) -> None:
    """Triton's example clients get what they want, or are told by name what there is not: over HTTP and gRPC alike."""
    http, admin = (up.ready[name].removeprefix("http://") for name in ("gateway", "admin"))
    said = run(clients, "triton_examples.py", http, up.ready["grpc"], admin)
    for name, expected in WORKS.items():
        assert said.pop(name) == expected, name
    for name, (status, code, words) in REFUSED.items():
        (http_status, over_http), (grpc_code, over_grpc) = said.pop(name)
        assert (http_status, grpc_code) == (status, code), name
        assert words in over_http, name
        assert words in over_grpc, name
    for (refused,), status in zip(said.pop("shared_memory_calls"), ("501", "UNIMPLEMENTED"), strict=True):
        assert (refused[0], "shared memory is not implemented here" in refused[1]) == (status, True)
    for (enough, late, words), status in zip(said.pop("timeout"), ("504", "DEADLINE_EXCEEDED"), strict=True):
        assert (enough, late, "deadline of 1e-06 s passed" in words) == (True, status, True)
    *worked, words = said.pop("explicit_contents")
    assert worked == [True, 0, True]
    assert words == "input 'INPUT0' has contents beside raw_input_contents"
    *worked, words = said.pop("stream")
    assert worked == [True, "a"]
    assert words.startswith("the request has the parameter sequence_")
    listed, loaded, config, files, unknown = said.pop("model_control")
    assert (listed, loaded, config[0], files[0], unknown[0]) == (True, True, "400", "400", "404")
    assert "the parameter 'config' has no effect here" in config[1]
    assert "the parameter 'file:1/model.pt' has no effect here" in files[1]
    assert said == {}


@pytest.mark.install
@pytest.mark.timeout(600)
def test_kserve_client(up: Up, clients: Path) -> None:
    """KServe's client finds the model ready, predicts over v1, v2 as JSON and binary, and gRPC, and asks to explain."""
    said = run(clients, "kserve_client.py", up.gateway, up.ready["grpc"])
    (status, words), (unknown, _) = said.pop("v1 explain refused"), said.pop("v1 unknown")
    assert (status, "the model has no explanations" in words, unknown) == (501, True, 404)
    assert said == {
        "v1 live": True,
        "v1 ready": True,
        "v1": LABELS[:2],
        "v1 explain": {"explanations": ['"True"']},
        "v2 ready": [True, True, True, False],
        "v2 json": LABELS[:2],
        "v2 json id": "42",
        "v2 binary": LABELS[:2],
        "v2 binary id": "42",
        "grpc ready": [True, True, True],
        "grpc": LABELS[:2],
        "grpc typed": LABELS[:2],
    }
