"""Open Inference v2 over REST, through a gateway whose pod's handler gives back what it gets."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.fakes import FakePod, Running, answer, broken_model, busy, running
from gateway.handlers import TEXT, TWO, handling, ready, refusing, value_of
from marway import __version__
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.wire.envelope import Row
from support.registry import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN: list[Row] = []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway over one pod and three models: `free` has no signature, `intent` one input, `two` two of each."""
    scratch = tmp_path_factory.mktemp("v2")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish(registry, scratch, "free")
    publish(registry, scratch, "intent", signature=TEXT, framework="pytorch", model_id="run-7")
    publish(registry, scratch, "intent", "1.1", signature=TEXT, label="STG")
    publish(registry, scratch, "two", signature=TWO)
    pod = FakePod("a", behave=handling(refusing, seen=SEEN))
    await pod.start()
    async with running(pod, registry=registry, max_body_bytes=200_000) as served:
        await ready(served)
        yield served
    await pod.stop()


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


def tensor(
    name: str = "x", datatype: str = "FP32", shape: Any = (2,), data: Any = (1, 2), **parameters: Any
) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    if parameters:
        made["parameters"] = parameters
    return made


async def infer(
    gateway: Running, *inputs: Any, path: str = "free", headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    return await gateway.client.post(
        f"/v2/models/{path}/infer", content=json.dumps({"inputs": inputs, **more}), headers=headers
    )


async def test_rows_in_and_rows_out(gateway: Running) -> None:
    """A tensor of shape [N, …] reaches the handler as N rows, and its answers come back as one tensor."""
    said = await infer(gateway, tensor(shape=[2, 3], data=[1, 2, 3, 4, 5.5, 6]), id="mine")
    assert said.status_code == 200, said.text
    assert said.headers["content-type"] == "application/json"
    assert said.json() == {
        "model_name": "free",
        "model_version": "1.0",
        "id": "mine",
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5.5, 6]}],
    }
    assert [value_of(row.parts[0]) for row in SEEN] == [[1, 2, 3], [4, 5.5, 6]]


@pytest.mark.parametrize(
    "path", ["intent", "intent/versions/1.0", "intent/versions/PROD", "intent/versions/STG", "run-7", "INTENT"]
)
async def test_every_reference(gateway: Running, path: str) -> None:
    """A model's name, its version, its label in the version's place and its id all lead to the version."""
    said = await infer(gateway, tensor("text", "BYTES", data=["für", "b"]), path=path)
    assert said.status_code == 200, said.text
    version = "1.1" if path.endswith("STG") else "1.0"
    assert (said.json()["model_name"], said.json()["model_version"]) == ("intent", version)
    assert said.json()["outputs"] == [{"name": "prediction", "datatype": "BYTES", "shape": [2], "data": ["für", "b"]}]
    assert said.headers["x-model-version"] == version


@pytest.mark.parametrize("path", ["free", "free/versions/1.0"])
async def test_explanations(gateway: Running, path: str) -> None:
    """`/explain` is an inference whose rows the handler is asked to explain."""
    asked = {"inputs": [tensor(shape=[1], data=[1])]}
    said = await gateway.client.post(f"/v2/models/{path}/explain", content=json.dumps(asked))
    assert said.status_code == 200, said.text
    assert said.json()["outputs"][0]["data"] == [1]


async def test_binary_tensors(gateway: Running) -> None:
    """Binary inputs lie behind the JSON in their order, and outputs come back so where that is asked for."""
    top = struct.pack("<4i", 1, 2, 3, 4)
    text = struct.pack("<I", 3) + b"\xff\x00a" + struct.pack("<I", 1) + b"b"
    inputs = [
        {"name": "top", "datatype": "INT32", "shape": [2, 2], "parameters": {"binary_data_size": len(top)}},
        {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(text)}},
    ]
    outputs = [{"name": "top", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    said = await gateway.client.post(
        "/v2/models/two/infer",
        content=head + top + text,
        headers={"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"},
    )
    assert said.status_code == 200, said.text
    assert said.headers["content-type"] == "application/octet-stream"
    length = int(said.headers["inference-header-content-length"])
    assert json.loads(said.content[:length])["outputs"] == [
        {"name": "top", "datatype": "INT64", "shape": [2, 2], "parameters": {"binary_data_size": 32}}
    ]
    assert said.content[length:] == struct.pack("<4q", 1, 2, 3, 4)
    assert [{part.name: value_of(part) for part in row.parts} for row in SEEN] == [
        {"top": [1, 2], "text": b"\xff\x00a"},
        {"top": [3, 4], "text": "b"},
    ]


async def test_binary_output_of_all(gateway: Running) -> None:
    """`binary_data_output` makes all outputs binary, save those that say no."""
    inputs = (tensor("text", "BYTES", [1], ["a"]), tensor("top", "INT32", [1, 2], [[1, 2]]))
    said = await infer(
        gateway,
        *inputs,
        path="two",
        parameters={"binary_data_output": True},
        outputs=[{"name": "top", "parameters": {"binary_data": False}}, {"name": "text"}],
    )
    assert said.status_code == 200, said.text
    length = int(said.headers["inference-header-content-length"])
    assert json.loads(said.content[:length])["outputs"] == [
        {"name": "top", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]},
        {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
    ]
    assert said.content[length:] == b"\x01\x00\x00\x00a"


async def test_bytes_that_are_no_text(gateway: Running) -> None:
    """In JSON, bytes that are no text come back as base64 that says so, and may be sent so."""
    said = await infer(gateway, tensor("x", "BYTES", [2], ["/w==", "YQ=="], content_type="base64"))
    assert said.json()["outputs"][0] == {
        "name": "output",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"content_type": "base64"},
        "data": ["/w==", "YQ=="],
    }


async def test_ids_and_headers(gateway: Running) -> None:
    """Ids and trace come in, reach the pod and go out with the model and the timings, as over the native routes."""
    headers = {"x-request-id": "r-1", "x-request-group-id": "g-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    said = await infer(gateway, tensor(), headers=headers)
    assert said.status_code == 200, said.text
    assert (said.headers["x-request-id"], said.headers["x-request-group-id"]) == ("r-1", "g-1")
    assert (said.headers["x-model-name"], said.headers["x-model-id"]) == ("free", "run-free-1.0")
    assert "pod;dur=" in said.headers["server-timing"]
    labels = 'model="free",outcome="ok",surface="open_inference",version="1.0"'
    assert await gateway.metric(f"marway_gateway_request_duration_seconds_count{{{labels}}}") >= 1
    assert await gateway.metric("marway_gateway_requests_in_flight") == 0


async def test_a_refused_row_fails_the_request(gateway: Running) -> None:
    """The handler's own status and words come back, with the number of the row."""
    said = await infer(gateway, tensor("text", "BYTES", [2], ["a", "refuse"]), path="intent")
    assert (said.status_code, said.json()) == (422, {"error": "row 1: no refuse"})
    labels = 'model="intent",outcome="model_error",surface="open_inference",version="1.0"'
    assert await gateway.metric(f"marway_gateway_request_duration_seconds_count{{{labels}}}") == 1


X = tensor("x", "FP32", [2], [1, 2])
T = tensor("text", "BYTES", [1], ["a"])
BAD: list[tuple[str, dict[str, Any] | bytes, dict[str, str], int, str]] = [
    # references
    ("nix", {"inputs": [X]}, {}, 404, "there is no model 'nix'"),
    ("free/versions/9", {"inputs": [X]}, {}, 404, "no version '9'"),
    ("free/versions/STG", {"inputs": [X]}, {}, 404, "no label STG"),
    ("fr%20ee", {"inputs": [X]}, {}, 400, "cannot be a model id"),
    # bodies
    ("free", b"", {}, 400, "no body"),
    ("free", b"{", {}, 400, "no JSON"),
    ("free", b"[" * 100_000, {}, 400, "no JSON"),
    ("free", b"[1]", {}, 400, "no object"),
    ("free", b"\xff", {}, 400, "no JSON"),
    ("free", b"x" * 200_001, {}, 413, "at most 200000 bytes"),
    ("free", {}, {}, 400, "no list of inputs"),
    ("free", {"inputs": []}, {}, 400, "no inputs"),
    ("free", {"inputs": [1]}, {}, 400, "input 0 is no object"),
    ("free", {"inputs": [X], "id": 7}, {}, 400, "id is no text"),
    ("free", {"inputs": [X], "outputs": 1}, {}, 400, "outputs is no list"),
    ("free", {"inputs": [X], "outputs": [{}]}, {}, 400, "output 0 has no name"),
    ("free", {"inputs": [X], "outputs": [{"name": "y"}]}, {}, 400, "no output 'y': it gives output"),
    ("free", {"inputs": [X], "outputs": [{"name": "output"}] * 2}, {}, 400, "asked for twice"),
    ("free", {"inputs": [X], "parameters": 1}, {}, 400, "parameters that are no object"),
    ("free", {"inputs": [X], "parameters": {"binary_data_output": 1}}, {}, 400, "neither true nor false"),
    # headers
    ("free", {"inputs": [X]}, {"x-request-timeout-ms": "soon"}, 400, "whole number of milliseconds"),
    ("free", {"inputs": [X]}, {"content-encoding": "br"}, 415, "Content-Encoding 'br' is not taken"),
    ("free", {"inputs": [X]}, {"inference-header-content-length": "x"}, 400, "number of bytes of the body's JSON"),
    ("free", {"inputs": [X]}, {"inference-header-content-length": "0"}, 400, "number of bytes of the body's JSON"),
    ("free", {"inputs": [X]}, {"inference-header-content-length": "99999"}, 400, "number of bytes of the body's JSON"),
    ("free", {"inputs": [X]}, {"inference-header-content-length": "3"}, 400, "no JSON"),
    ("free", {"inputs": [X]}, {"content-type": "application/vnd.marway.rows"}, 400, "kept for Marway"),
    # tensors
    ("free", {"inputs": [{**X, "name": 1}]}, {}, 400, "input 0 has no name"),
    ("free", {"inputs": [{**X, "name": ""}]}, {}, 400, "an input has no name"),
    ("free", {"inputs": [{**X, "name": "marway.envelope.v1"}]}, {}, 400, "kept for Marway"),
    ("free", {"inputs": [X, X]}, {}, 400, "two inputs have the name 'x'"),
    ("free", {"inputs": [X, tensor("z", shape=[1], data=[1])]}, {}, 400, "input 'z' has 1 rows and input 'x' 2"),
    ("free", {"inputs": [tensor(datatype="FP33")]}, {}, 400, "no known datatype"),
    ("free", {"inputs": [tensor(datatype=1)]}, {}, 400, "no known datatype"),
    ("free", {"inputs": [tensor(shape=None)]}, {}, 400, "no shape"),
    ("free", {"inputs": [tensor(shape=[-1])]}, {}, 400, "no shape"),
    ("free", {"inputs": [tensor(shape=[2.0])]}, {}, 400, "no shape"),
    ("free", {"inputs": [tensor(shape=[True])]}, {}, 400, "no shape"),
    ("free", {"inputs": [tensor(shape="12")]}, {}, 400, "no shape"),
    ("free", {"inputs": [tensor(shape=[])]}, {}, 400, "has 0 dimensions"),
    ("free", {"inputs": [tensor(shape=[1] * 17)]}, {}, 400, "has 17 dimensions"),
    ("free", {"inputs": [tensor(shape=[10**9, 10**9])]}, {}, 400, "elements"),
    ("free", {"inputs": [tensor(shape=[0], data=[])]}, {}, 400, "has 0 rows: send 1 to 1024"),
    ("free", {"inputs": [tensor(shape=[1025], data=[0] * 1025)]}, {}, 400, "has 1025 rows"),
    ("free", {"inputs": [tensor(data=None)]}, {}, 400, "no list under data"),
    ("free", {"inputs": [tensor(data=[1, 2, 3])]}, {}, 400, "has 3 elements; its shape [2] has 2"),
    ("free", {"inputs": [tensor(shape=[2, 2], data=[[1, 2], [3]])]}, {}, 400, "its dimension 1 is not 2 everywhere"),
    ("free", {"inputs": [tensor(shape=[2, 2], data=[[1, 2]])]}, {}, 400, "its dimension 0 is not 2"),
    ("free", {"inputs": [tensor(shape=[2], data=[[1], [2]])]}, {}, 400, "its element 0, [1], is none"),
    ("free", {"inputs": [tensor(data=[1, "2"])]}, {}, 400, "is FP32; its element 1, '2', is none"),
    ("free", {"inputs": [tensor(data=[1, True])]}, {}, 400, "element 1, True, is none"),
    ("free", {"inputs": [tensor(data=[1, 1e39])]}, {}, 400, "element 1, 1e+39, is none"),
    (
        "free",
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
        {},
        400,
        "NaN is no number",
    ),
    ("free", {"inputs": [tensor(datatype="INT8", data=[1, 128])]}, {}, 400, "is INT8; its element 1, 128, is none"),
    ("free", {"inputs": [tensor(datatype="UINT8", data=[1, -1])]}, {}, 400, "element 1, -1, is none"),
    ("free", {"inputs": [tensor(datatype="INT64", data=[1, 1.5])]}, {}, 400, "element 1, 1.5, is none"),
    ("free", {"inputs": [tensor(datatype="BOOL", data=[True, 2])]}, {}, 400, "element 1, 2, is none"),
    ("free", {"inputs": [tensor(datatype="BYTES", data=["a", 1])]}, {}, 400, "element 1, 1, is none"),
    (
        "free",
        b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}',
        {},
        400,
        "Unicode",
    ),
    ("free", {"inputs": [tensor(datatype="BYTES", data=["a", "b"], content_type="base64")]}, {}, 400, "says base64"),
    ("free", {"inputs": [tensor(datatype="BYTES", data=["a", "b"], content_type="a/b\n")]}, {}, 400, "no MIME type"),
    ("free", {"inputs": [tensor(binary_data_size=8)]}, {}, 400, "both data and binary_data_size"),
    ("free", {"inputs": [tensor(shared_memory_region="r")]}, {}, 400, "that extension is not there"),
    (
        "free",
        {"inputs": [X], "outputs": [{"name": "output", "parameters": {"classification": 3}}]},
        {},
        400,
        "not there",
    ),
    # against a signature
    ("intent", {"inputs": [X]}, {}, 400, "the model has no input 'x': it takes text"),
    ("intent", {"inputs": [T, X]}, {}, 400, "the model has no input 'x'"),
    ("two", {"inputs": [T]}, {}, 400, "lacks the input 'top'"),
    ("intent", {"inputs": [tensor("text", "FP32", [1], [1])]}, {}, 400, "is FP32: the model takes BYTES"),
    ("intent", {"inputs": [tensor("text", "BYTES", [1, 2], ["a", "b"])]}, {}, 400, "the model takes [-1]"),
    ("two", {"inputs": [T, tensor("top", "INT32", [1, 3], [1, 2, 3])]}, {}, 400, "has the shape [1, 3]"),
    ("intent", {"inputs": [T], "outputs": [{"name": "label"}]}, {}, 400, "no output 'label': it gives prediction"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "says"), BAD)
async def test_bad_input(
    gateway: Running, path: str, body: dict[str, Any] | bytes, headers: dict[str, str], status: int, says: str
) -> None:
    """Each wrong reference, body, header and tensor is refused in the protocol's form, before a pod is asked."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = await gateway.client.post(f"/v2/models/{path}/infer", content=content, headers=headers)
    assert said.status_code == status, said.text
    assert said.headers["content-type"] == "application/json"
    assert said.json().keys() == {"error"}
    assert says in said.json()["error"]
    assert said.headers["x-request-id"]
    assert SEEN == []


BINARY_BAD = [
    ({"binary_data_size": 9}, b"12345678", "8 bytes of binary data are left"),
    ({"binary_data_size": -1}, b"12345678", "binary_data_size -1"),
    ({"binary_data_size": "8"}, b"12345678", "binary_data_size '8'"),
    ({"binary_data_size": 4}, b"1234", "has 4 bytes: 2 elements of FP32 have 8"),
    ({"binary_data_size": 8}, b"123456789", "1 bytes are left after the last binary tensor"),
]


@pytest.mark.parametrize(("parameters", "data", "says"), BINARY_BAD)
async def test_bad_binary_input(gateway: Running, parameters: dict[str, Any], data: bytes, says: str) -> None:
    """Binary data that does not fit its tensor is refused."""
    described = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": parameters}
    head = json.dumps({"inputs": [described]}).encode()
    said = await gateway.client.post(
        "/v2/models/free/infer", content=head + data, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    assert said.status_code == 400
    assert says in said.json()["error"]
    assert SEEN == []


async def test_binary_size_without_the_header(gateway: Running) -> None:
    """Binary tensors cannot be found without the header that says where they begin."""
    described = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    said = await infer(gateway, described)
    assert (said.status_code, "no Inference-Header-Content-Length" in said.text) == (400, True)


async def test_rows_too_large_as_json(gateway: Running) -> None:
    """Rows that are within the limit as binary and beyond it as JSON are refused with words that say so."""
    data = struct.pack("<20000d", *([0.1234567890123] * 20000))
    described = {"name": "x", "datatype": "FP64", "shape": [1, 20000], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [described]}).encode()
    said = await gateway.client.post(
        "/v2/models/free/infer", content=head + data, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    assert (said.status_code, "numbers being JSON there" in said.json()["error"]) == (413, True)
    assert SEEN == []


async def test_health_and_metadata(gateway: Running) -> None:
    """Server and models say that they are live and ready, and what they take and give."""
    get = gateway.client.get
    assert (await get("/v2")).json() == {"name": "marway", "version": __version__, "extensions": ["binary_tensor_data"]}
    assert (await get("/v2/health/live")).json() == {"live": True}
    assert (await get("/v2/health/ready")).json() == {"ready": True}
    for path, version in (("intent", "1.0"), ("intent/versions/STG", "1.1"), ("run-7", "1.0")):
        ready = await get(f"/v2/models/{path}/ready")
        assert (ready.status_code, ready.json()) == (200, {"name": "intent", "version": version, "ready": True})
        assert (await get(f"/v2/models/{path}")).json() == {
            "name": "intent",
            "versions": ["1.0", "1.1"],
            "platform": "pytorch_torchserve" if version == "1.0" else "torchserve",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}],
        }
    assert (await get("/v2/models/free")).json()["inputs"] == []


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v2/models/nix/ready", 404, "there is no model"),
        ("/v2/models/nix", 404, "there is no model"),
        ("/v2/models/intent/versions/9/ready", 404, "no version"),
        ("/v2/models/intent/versions/9", 404, "no version"),
        ("/v2/models/in%20tent/ready", 400, "cannot be a model id"),
        ("/v2/models/intent/config", 501, "not implemented here"),
        ("/v2/models/nix/", 404, "there is no model"),
        ("/v2/models/intent/infer/", 405, "takes POST, not GET"),
        ("/v2//", 404, "there is nothing at"),
        ("/v2/models/intent/infer", 405, "takes POST, not GET"),
        ("/v2/nix", 404, "there is nothing at"),
    ],
)
async def test_what_is_not_there(gateway: Running, path: str, status: int, says: str) -> None:
    """Whatever is asked under /v2, errors have the protocol's form."""
    said = await gateway.client.get(path)
    assert said.status_code == status, said.text
    assert said.json().keys() == {"error"}
    assert says in said.json()["error"]


async def test_a_pods_errors(tmp_path: Path) -> None:
    """What pods refuse comes in the protocol's form, and an answer that is none of rows is an error."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "free")
    pod = FakePod("a", behave=busy)
    await pod.start()
    try:
        async with running(pod, registry=registry) as served:
            said = await infer(served, X)
            assert (said.status_code, said.headers["retry-after"]) == (503, "7")
            assert "64 requests wait" in said.json()["error"]
            pod.behave = broken_model
            assert (await infer(served, X)).json() == {"error": "KeyError: 'text'"}
            pod.behave = answer
            pod.requests.clear()
            echoed = await infer(served, X)  # the fake gives back the envelope of rows, which holds no answers
            assert (echoed.status_code, "cannot be read" in echoed.json()["error"]) == (500, True)
    finally:
        await pod.stop()


async def test_no_pod(tmp_path: Path) -> None:
    """Without a pod that takes requests, nothing is ready, and inference is a 503."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "free")
    async with running(registry=registry) as served:
        for path in ("/v2/health/ready", "/v2/models/free/ready"):
            said = await served.client.get(path)
            assert said.status_code == 503
            assert said.headers["retry-after"]
            assert "no pods are configured" in said.json()["error"]
        assert (await infer(served, X)).status_code == 503


async def test_the_deadline(tmp_path: Path) -> None:
    """A request ends at its deadline, with the body's time counted."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "free")
    async with running(registry=registry) as served:
        url = httpx.URL(served.addresses.gateway)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = ("POST /v2/models/free/infer HTTP/1.1", "host: x", "content-length: 9", "x-request-timeout-ms: 200")
        writer.write("\r\n".join((*head, "", "{")).encode())
        assert b" 504 " in await reader.readline()
        assert b"deadline of 0.2 s passed" in await reader.readuntil(b"}")
        writer.close()
        await writer.wait_closed()
