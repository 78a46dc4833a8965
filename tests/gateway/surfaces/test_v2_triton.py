"""What Triton and its clients add to Open Inference v2, over REST and gRPC: served, or refused by name."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.fakes import FakePod, Running, hang, running
from gateway.handlers import TEXT, TWO, handling, ready, refusing, value_of
from marway.objects import DirectoryStore
from marway.records import Signature, TensorSpec
from marway.registry import Registry
from marway.wire.envelope import Row
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.registry import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN: list[Row] = []
Code = grpc.StatusCode
RAW = {"Inference-Header-Content-Length": "0", "content-type": "application/octet-stream"}


def takes(datatype: str, *shape: int) -> Signature:
    return Signature(inputs=(TensorSpec(name="x", datatype=datatype, shape=shape),))


MODELS = {
    "free": Signature(),
    "text": TEXT,
    "two": TWO,
    "pair": takes("FP32", -1, 2),
    "open": takes("INT16", -1, -1, 2),
    "wide": takes("FP32", -1, -1, -1),
    "words": takes("BYTES", -1, 3),
    "shapeless": takes("FP32"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway over one pod and a model for each kind of signature."""
    scratch = tmp_path_factory.mktemp("triton")
    registry = Registry(DirectoryStore(scratch / "registry"))
    for name, signature in MODELS.items():
        publish(registry, scratch, name, signature=signature)
    pod = FakePod("a", behave=handling(refusing, seen=SEEN))
    await pod.start()
    async with running(pod, registry=registry) as served:
        await ready(served)
        yield served
    await pod.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(gateway: Running) -> AsyncIterator[Any]:
    """A client of the gRPC service."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


def message(
    *, contents: bool = True, raw: bytes | None = None, outputs: Any = (), of_input: Any = None, **parameters: Any
) -> pb.ModelInferRequest:
    """Return a request with one FP32 input of two rows; parameters are of the request."""
    request = pb.ModelInferRequest(model_name="free")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2])
    if contents:
        tensor.contents.fp32_contents.extend([0.5, 2])
    if raw is not None:
        request.raw_input_contents.append(raw)
    _add(tensor.parameters, of_input or {})
    for name, own in outputs:
        _add(request.outputs.add(name=name).parameters, own)
    _add(request.parameters, parameters)
    return request


def _add(parameters: Any, values: dict[str, Any]) -> None:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in values.items():
        setattr(parameters[name], kinds[type(value)], value)


PAIR = struct.pack("<2f", 0.5, 2)


@pytest.mark.parametrize(
    ("model", "body", "value", "data"),
    [
        ("text", b"play jazz", "play jazz", b"\x09\0\0\0play jazz"),
        ("text", b"\x04\0\0\0jazz", "\x04\0\0\0jazz", b"\x08\0\0\0\x04\0\0\0jazz"),
        ("text", b"\xff\x00", b"\xff\x00", b"\x02\0\0\0\xff\x00"),
        ("pair", PAIR, [0.5, 2], PAIR),
        ("open", struct.pack("<6h", *range(6)), [[0, 1], [2, 3], [4, 5]], struct.pack("<6q", *range(6))),
    ],
)
async def test_raw_binary_requests(gateway: Running, model: str, body: bytes, value: Any, data: bytes) -> None:
    """With a header length of 0 the body is the one input's data, one row of it, and outputs come back as binary."""
    said = await gateway.client.post(f"/v2/models/{model}/infer", content=body, headers=RAW)
    assert said.status_code == 200, said.text
    assert [value_of(row.parts[0]) for row in SEEN] == [value]
    length = int(said.headers["inference-header-content-length"])
    (output,) = json.loads(said.content[:length])["outputs"]
    assert output["shape"][0] == 1
    assert output["parameters"] == {"binary_data_size": len(data)}
    assert said.content[length:] == data


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [
        ("free", PAIR, "this signature has no inputs"),
        ("two", PAIR, "this signature has 2 inputs"),
        ("shapeless", PAIR, "no shape for its one input"),
        ("wide", PAIR, "takes the shape [-1, -1, -1], which the number of bytes"),
        ("words", b"abc", "takes the shape [-1, 3], which the number of bytes"),
        ("pair", PAIR[:7], "has 7 bytes: 2 elements of FP32 have 8"),
        ("pair", PAIR * 2, "has 16 bytes: 2 elements of FP32 have 8"),
        ("open", b"12345", "has 5 bytes: 2 elements of INT16 have 4"),
    ],
)
async def test_raw_binary_requests_that_say_too_little(gateway: Running, model: str, body: bytes, says: str) -> None:
    """A raw body whose shape does not follow from its size is refused with what is in the way."""
    said = await gateway.client.post(f"/v2/models/{model}/infer", content=body, headers=RAW)
    assert (said.status_code, says in said.json()["error"]) == (400, True), said.text
    assert SEEN == []


async def test_empty_contents_beside_raw_ones(stub: Any) -> None:
    """An input whose `contents` are set and empty may have its values in `raw_input_contents`."""
    request = message(contents=False, raw=PAIR, of_input={"binary_data_size": 8})
    request.inputs[0].contents.SetInParent()
    answer = await stub.ModelInfer(request, timeout=20)
    assert list(answer.raw_output_contents) == [PAIR]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("output", [None, False, True])
@pytest.mark.parametrize("of_request", [None, False, True])
async def test_outputs_have_the_form_that_is_asked_for(
    stub: Any, raw: bool, output: bool | None, of_request: bool | None
) -> None:
    """Over gRPC outputs have the inputs' form, unless the request or the outputs say whether they are binary."""
    request = message(
        contents=not raw,
        raw=PAIR if raw else None,
        outputs=[] if output is None else [("output", {"binary_data": output})],
        **({} if of_request is None else {"binary_data_output": of_request}),
    )
    answer = await stub.ModelInfer(request, timeout=20)
    wanted = next(each for each in (output, of_request, raw) if each is not None)
    assert list(answer.raw_output_contents) == ([PAIR] if wanted else [])
    assert list(answer.outputs[0].contents.fp32_contents) == ([] if wanted else [0.5, 2])


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (message(contents=False, raw=PAIR, of_input={"binary_data_size": 4}), "binary_data_size 4, and 8 bytes in raw"),
        (message(of_input={"binary_data_size": 8}), "binary_data_size 8, and no raw_input_contents"),
        (message(binary_data_output="yes"), "neither true nor false"),
        (message(of_input={"shared_memory_region": "r"}), "input 'x' has the parameter shared_memory_region"),
        (message(of_input={"timeout": 1}), "'timeout', which has no effect here"),
        (message(outputs=[("output", {"classification": 3})]), "output 'output' has the parameter classification"),
        (message(sequence_id="a"), "sequence_id: that extension is not there; no state is kept"),
        (message(priority=3), "priority: that extension is not there"),
        (message(temperature=0.5), "'temperature', which has no effect here"),
        (message(timeout=-1), "timeout -1: give a whole number of microseconds"),
        (message(timeout="1"), "timeout '1'"),
        (message(timeout=True), "timeout True"),
    ],
)
async def test_parameters_over_grpc(stub: Any, request_: pb.ModelInferRequest, says: str) -> None:
    """Parameters that mean nothing here, or nothing at all, are refused by name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request_, timeout=20)
    assert (caught.value.code(), says in (caught.value.details() or "")) == (Code.INVALID_ARGUMENT, True), caught.value
    assert SEEN == []


async def test_outputs_of_two_forms_over_grpc(stub: Any) -> None:
    """A response is raw as a whole or not at all: outputs that are wanted otherwise are refused."""
    request = pb.ModelInferRequest(model_name="two")
    request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
    request.inputs.add(name="top", datatype="INT32", shape=[1, 2]).contents.int_contents.extend([1, 2])
    _add(request.outputs.add(name="text").parameters, {"binary_data": True})
    request.outputs.add(name="top")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request, timeout=20)
    assert "over gRPC all are raw, or none is" in (caught.value.details() or "")


X = {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.5, 2]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"inputs": [X], "parameters": {"sequence_id": 42}}, "the request has the parameter sequence_id"),
        ({"inputs": [X], "parameters": {"sequence_start": True}}, "parameter sequence_start"),
        ({"inputs": [X], "parameters": {"sequence_end": True}}, "parameter sequence_end"),
        ({"inputs": [X], "parameters": {"priority": 1}}, "parameter priority"),
        ({"inputs": [X], "parameters": {"headers": {}}}, "'headers', which has no effect here: leave it out"),
        ({"inputs": [X], "parameters": {"timeout": 0.5}}, "timeout 0.5: give a whole number of microseconds"),
        (
            {"inputs": [{**X, "parameters": {"shared_memory_offset": 0}}]},
            "input 'x' has the parameter shared_memory",
        ),
        ({"inputs": [{**X, "parameters": {"binary_data": True}}]}, "known are binary_data_size, content_type"),
        (
            {"inputs": [X], "outputs": [{"name": "output", "parameters": {"top": 1}}]},
            "output 0 has the parameter",
        ),
    ],
)
async def test_parameters_over_rest(gateway: Running, document: dict[str, Any], says: str) -> None:
    """Parameters that mean nothing here are refused by name."""
    said = await gateway.client.post("/v2/models/free/infer", content=json.dumps(document))
    assert (said.status_code, says in said.json()["error"]) == (400, True), said.text
    assert SEEN == []


async def test_parameters_that_ask_for_nothing(gateway: Running, stub: Any) -> None:
    """The protocol's own values for no sequence, no priority and no time-out are taken."""
    nothing = {"sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 0, "timeout": 0}
    document = {"inputs": [X], "parameters": {**nothing, "binary_data_output": None, "other": None}}
    said = await gateway.client.post("/v2/models/free/infer", content=json.dumps(document))
    assert said.status_code == 200, said.text
    assert (await stub.ModelInfer(message(**nothing), timeout=20)).model_name == "free"


async def test_timeout_is_a_deadline(tmp_path: Path) -> None:
    """A request's `timeout`, in microseconds, is its deadline where no other is earlier; pods are told of it too."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "free")
    pod = FakePod("a", behave=handling(refusing))
    await pod.start()
    try:
        async with (
            running(pod, registry=registry) as served,
            grpc.aio.insecure_channel(served.addresses.grpc) as channel,
        ):
            service = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            for header, timeout, least, most in (
                (None, 20_000_000, 10_000, 20_000),
                ("30000", 20_000_000, 10_000, 20_000),
                ("20000", 30_000_000, 10_000, 20_000),
            ):
                headers = {} if header is None else {"x-request-timeout-ms": header}
                document = json.dumps({"inputs": [X], "parameters": {"timeout": timeout}})
                said = await served.client.post("/v2/models/free/infer", content=document, headers=headers)
                assert said.status_code == 200, said.text
                await service.ModelInfer(message(timeout=timeout), metadata=tuple(headers.items()))
                for seen in pod.requests[-2:]:
                    assert least < int(seen.headers["x-request-timeout-ms"]) <= most
            pod.behave = hang
            document = json.dumps({"inputs": [X], "parameters": {"timeout": 300_000}})
            said = await served.client.post("/v2/models/free/infer", content=document)
            assert (said.status_code, "deadline of 0.3 s" in said.json()["error"]) == (504, True), said.text
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.ModelInfer(message(timeout=300_000))
            assert (caught.value.code(), "of 0.3 s" in str(caught.value.details())) == (Code.DEADLINE_EXCEEDED, True)
    finally:
        await pod.stop()


SHARED = [
    f"{kind}sharedmemory{region}/{verb}"
    for kind in ("system", "cuda")
    for region in ("", "/region/r")
    for verb in ("status", "register", "unregister")
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        *((f"models/{model}/config", 501, "GET /v2/models/{model}") for model in ("free", "free/versions/1.0")),
        *((f"models/{model}/stats", 501, "GET /metrics") for model in ("free", "free/versions/1.0")),
        *((f"{of}trace/setting", 501, "Server-Timing") for of in ("", "models/free/")),
        *((f"models/free/{verb}", 501, "POST /predict/{model}") for verb in ("generate", "generate_stream")),
        ("logging", 501, "configuration"),
        *((path, 501, "send the data in the request") for path in SHARED),
        ("repository/index", 404, "admin port"),
        ("repository/models/free/load", 404, "admin port"),
        ("repository/models/free/unload", 404, "admin port"),
    ],
)
async def test_calls_that_are_not_there(gateway: Running, method: str, path: str, status: int, says: str) -> None:
    """Each call of Triton's that is not served says so, and what there is instead, in the protocol's form."""
    said = await gateway.client.request(method, f"/v2/{path}", content=b"{}" if method == "POST" else None)
    assert said.status_code == status, said.text
    assert said.json().keys() == {"error"}
    assert says in said.json()["error"]
    assert ("not implemented here" if status == 501 else "not on this port") in said.json()["error"]


async def test_statistics_of_all_models(gateway: Running, tmp_path: Path) -> None:
    """Triton's path for all models' statistics is a model's where one has that name."""
    said = await gateway.client.get("/v2/models/stats")
    assert (said.status_code, "not implemented here" in said.text) == (501, True)
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "stats")
    async with running(registry=registry) as served:
        assert (await served.client.get("/v2/models/stats")).json()["name"] == "stats"


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("CudaSharedMemoryRegister", "send the data in the request"),
        ("CudaSharedMemoryStatus", "send the data in the request"),
        ("CudaSharedMemoryUnregister", "send the data in the request"),
        ("LogSettings", "configuration"),
        ("ModelConfig", "ModelMetadata"),
        ("ModelStatistics", "GET /metrics"),
        ("RepositoryIndex", "admin port"),
        ("RepositoryModelLoad", "admin port"),
        ("RepositoryModelUnload", "admin port"),
        ("SystemSharedMemoryRegister", "send the data in the request"),
        ("SystemSharedMemoryStatus", "send the data in the request"),
        ("SystemSharedMemoryUnregister", "send the data in the request"),
        ("TraceSetting", "Server-Timing"),
    ],
)
async def test_grpc_calls_that_are_not_there(gateway: Running, method: str, says: str) -> None:
    """Each of Triton's calls that is not served is UNIMPLEMENTED whatever it carries, with what there is instead."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        path = f"/inference.GRPCInferenceService/{method}"
        for data in (b"", b"\x0a\x01m", b"\xff"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path)(data, timeout=20)
            assert caught.value.code() == Code.UNIMPLEMENTED
            assert says in (caught.value.details() or "")


async def test_reflection_lists_what_is_served(gateway: Running) -> None:
    """Reflection describes the calls that are served, and none of those that only say that they are not."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
        async for answer in stream:
            (data,) = answer.file_descriptor_response.file_descriptor_proto
            break
    (service,) = descriptor_pb2.FileDescriptorProto.FromString(data).service
    served = {method.name for method in service.method}
    of_server = {"ServerLive", "ServerReady", "ServerMetadata"}
    assert served == of_server | {"ModelReady", "ModelMetadata", "ModelInfer", "ModelStreamInfer"}


@pytest.mark.parametrize(
    "path",
    [
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/free", "/v2/models/free/ready"),
        *("/v2/models/free/versions/1.0", "/v2/models/free/versions/1.0/ready"),
        *("/v1/models/free", "/v1/models/free/metadata", "/v1/models/free/versions/1.0", "/v1/models/free/labels/PROD"),
    ],
)
async def test_a_slash_at_the_end(gateway: Running, path: str) -> None:
    """Every path of v1 and v2 may end in a slash."""
    plain, slashed = await gateway.client.get(path), await gateway.client.get(path + "/")
    assert (slashed.status_code, slashed.json()) == (200, plain.json())
    head = await gateway.client.head(path + "/")
    assert (head.status_code, head.content) == (200, b"")


async def test_predictions_with_a_slash_at_the_end(gateway: Running) -> None:
    """So may the paths of predictions, which take what they take without it."""
    said = await gateway.client.post("/v2/models/free/infer/", content=json.dumps({"inputs": [X]}))
    assert said.json()["outputs"][0]["data"] == [0.5, 2]
    said = await gateway.client.post("/v1/models/free:predict/", content=json.dumps({"instances": [1]}))
    assert said.json() == {"predictions": [1]}
    refused = await gateway.client.get("/v2/models/free/infer/")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
