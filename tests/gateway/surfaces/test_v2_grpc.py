"""Open Inference v2 over gRPC, through a gateway whose pod's handler gives back what it gets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.fakes import FakePod, Running, busy, running
from gateway.handlers import TEXT, TWO, handling, ready, refusing, value_of
from marway import __version__
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.wire.envelope import Row
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.registry import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN: list[Row] = []
Code = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway over one pod and three models: `free` has no signature, `intent` one input, `two` two of each."""
    scratch = tmp_path_factory.mktemp("v2_grpc")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish(registry, scratch, "free")
    publish(registry, scratch, "intent", signature=TEXT, framework="pytorch", model_id="run-7")
    publish(registry, scratch, "intent", "1.1", signature=TEXT, label="STG")
    publish(registry, scratch, "two", signature=TWO)
    pod = FakePod("a", behave=handling(refusing, seen=SEEN))
    await pod.start()
    async with running(pod, registry=registry) as served:
        await ready(served)
        yield served
    await pod.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(gateway: Running) -> AsyncIterator[Any]:
    """A client of the service."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


def tensor(
    name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (2,), **contents: Any
) -> pb.ModelInferRequest.InferInputTensor:
    made = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(pb.InferTensorContents(**contents))
    return made


def request(*inputs: Any, model: str = "free", version: str = "", **more: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name=model, model_version=version, inputs=inputs, **more)


@pytest.mark.parametrize(
    ("datatype", "field", "values", "back"),
    [
        ("BOOL", "bool_contents", [True, False], "BOOL"),
        ("INT8", "int_contents", [-128, 127], "INT64"),
        ("INT16", "int_contents", [-1, 2**15 - 1], "INT64"),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1], "INT64"),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1], "INT64"),
        ("UINT8", "uint_contents", [0, 255], "INT64"),
        ("UINT16", "uint_contents", [0, 65535], "INT64"),
        ("UINT32", "uint_contents", [0, 2**32 - 1], "INT64"),
        ("UINT64", "uint64_contents", [0, 2**64 - 1], "UINT64"),
        ("FP32", "fp32_contents", [0.5, -2.25], "FP32"),
        ("FP64", "fp64_contents", [0.5, 1e300], "FP64"),
        ("BYTES", "bytes_contents", [b"a", b"\xff\x00"], "BYTES"),
    ],
)
async def test_typed_contents(stub: Any, datatype: str, field: str, values: list[Any], back: str) -> None:
    """Each datatype's values come from their own field, and answers go back in theirs."""
    answer = await stub.ModelInfer(request(tensor(datatype=datatype, **{field: values}), id="mine"), timeout=20)
    assert (answer.model_name, answer.model_version, answer.id) == ("free", "1.0", "mine")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("output", back, [2])
    fields = {"INT64": "int64_contents", "UINT64": "uint64_contents"}
    assert list(getattr(output.contents, fields.get(back, field))) == values
    assert not answer.raw_output_contents
    assert [value_of(row.parts[0]) for row in SEEN] == ["a" if value == b"a" else value for value in values]


@pytest.mark.parametrize(
    ("datatype", "code", "values", "back"),
    [("FP16", "e", [0.5, -65504.0], "f"), ("FP32", "f", [0.5, 2.0], "f"), ("INT64", "q", [1, -(2**60)], "q")],
)
async def test_raw_contents(stub: Any, datatype: str, code: str, values: list[Any], back: str) -> None:
    """Raw inputs are read as binary tensors, and outputs go back raw; so travels FP16, which has no typed field."""
    raw = struct.pack(f"<2{code}", *values)
    answer = await stub.ModelInfer(request(tensor(datatype=datatype), raw_input_contents=[raw]), timeout=20)
    assert list(answer.raw_output_contents) == [struct.pack(f"<2{back}", *values)]
    assert not answer.outputs[0].HasField("contents")
    assert [value_of(row.parts[0]) for row in SEEN] == values


async def test_several_tensors(stub: Any) -> None:
    """Named inputs are named parts, and only the outputs that were asked for come back."""
    sent = request(
        tensor("text", "BYTES", (1,), bytes_contents=[b"a"]),
        tensor("top", "INT32", (1, 2), int_contents=[3, 4]),
        model="two",
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="top")],
    )
    answer = await stub.ModelInfer(sent, timeout=20)
    assert [(output.name, list(output.contents.int64_contents)) for output in answer.outputs] == [("top", [3, 4])]
    assert [{part.name: value_of(part) for part in row.parts} for row in SEEN] == [{"text": "a", "top": [3, 4]}]


@pytest.mark.parametrize(("model", "version"), [("intent", ""), ("intent", "1.0"), ("intent", "STG"), ("run-7", "")])
async def test_every_reference(stub: Any, model: str, version: str) -> None:
    """A name, a version, a label and an id lead to the version, for predictions, readiness and metadata."""
    expected = "1.1" if version == "STG" else "1.0"
    sent = request(tensor("text", "BYTES", (1,), bytes_contents=[b"a"]), model=model, version=version)
    answer = await stub.ModelInfer(sent, timeout=20)
    assert (answer.model_name, answer.model_version) == ("intent", expected)
    assert (await stub.ModelReady(pb.ModelReadyRequest(name=model, version=version), timeout=20)).ready
    told = await stub.ModelMetadata(pb.ModelMetadataRequest(name=model, version=version), timeout=20)
    assert (told.name, list(told.versions)) == ("intent", ["1.0", "1.1"])
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [("text", "BYTES", [-1])]
    assert [each.name for each in told.outputs] == ["prediction"]


async def test_server(stub: Any) -> None:
    """The server is live and ready, and says what it is."""
    assert (await stub.ServerLive(pb.ServerLiveRequest(), timeout=20)).live
    assert (await stub.ServerReady(pb.ServerReadyRequest(), timeout=20)).ready
    told = await stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=20)
    assert (told.name, told.version, list(told.extensions)) == ("marway", __version__, ["binary_tensor_data"])


async def test_ids_deadline_and_telemetry(gateway: Running, stub: Any) -> None:
    """Ids come in as metadata and go out as trailers with the model; the request counts under its surface."""
    call = stub.ModelInfer(
        request(tensor(fp32_contents=[1, 2])),
        timeout=20,
        metadata=(("x-request-id", "r-1"), ("x-request-group-id", "g")),
    )
    await call
    trailers = dict(await call.trailing_metadata())
    assert (trailers["x-request-id"], trailers["x-request-group-id"]) == ("r-1", "g")
    assert (trailers["x-model-name"], trailers["x-model-version"]) == ("free", "1.0")
    assert "pod;dur=" in trailers["server-timing"]
    labels = 'model="free",outcome="ok",surface="open_inference_grpc",version="1.0"'
    assert await gateway.metric(f"marway_gateway_request_duration_seconds_count{{{labels}}}") >= 1
    assert await gateway.metric("marway_gateway_requests_in_flight") == 0


GOOD = tensor(fp32_contents=[1, 2])
RAW = struct.pack("<2f", 1, 2)
BAD = [
    (request(GOOD, model=""), Code.INVALID_ARGUMENT, "model_name is empty"),
    (request(GOOD, model="nix"), Code.NOT_FOUND, "there is no model 'nix'"),
    (request(GOOD, version="9"), Code.NOT_FOUND, "no version '9'"),
    (request(GOOD, version="STG"), Code.NOT_FOUND, "no label STG"),
    (request(GOOD, model="in tent"), Code.INVALID_ARGUMENT, "cannot be a model id"),
    (request(), Code.INVALID_ARGUMENT, "no inputs"),
    (request(GOOD, GOOD), Code.INVALID_ARGUMENT, "two inputs have the name 'x'"),
    (request(tensor("", fp32_contents=[1, 2])), Code.INVALID_ARGUMENT, "an input has no name"),
    (request(tensor(datatype="F", fp32_contents=[1, 2])), Code.INVALID_ARGUMENT, "no known datatype"),
    (request(tensor(shape=(), fp32_contents=[1])), Code.INVALID_ARGUMENT, "0 dimensions"),
    (request(tensor(shape=(-1,), fp32_contents=[1])), Code.INVALID_ARGUMENT, "no shape"),
    (request(tensor(shape=(0,))), Code.INVALID_ARGUMENT, "has 0 rows"),
    (
        request(tensor(shape=(3,), fp32_contents=[1, 2])),
        Code.INVALID_ARGUMENT,
        "2 elements in fp32_contents; its shape has 3",
    ),
    (request(tensor()), Code.INVALID_ARGUMENT, "has 0 elements in fp32_contents"),
    (request(tensor(fp64_contents=[1, 2])), Code.INVALID_ARGUMENT, "its values belong in fp32_contents"),
    (request(tensor(datatype="INT8", int_contents=[1, 300])), Code.INVALID_ARGUMENT, "its element 1, 300, is none"),
    (request(tensor(datatype="FP16", fp32_contents=[1, 2])), Code.INVALID_ARGUMENT, "send raw_input_contents"),
    (request(GOOD, raw_input_contents=[RAW]), Code.INVALID_ARGUMENT, "contents beside raw_input_contents"),
    (request(tensor(), raw_input_contents=[RAW, RAW]), Code.INVALID_ARGUMENT, "1 inputs and 2 raw_input_contents"),
    (request(tensor(), raw_input_contents=[RAW[:7]]), Code.INVALID_ARGUMENT, "has 7 bytes"),
    (request(tensor(datatype="BOOL"), raw_input_contents=[b"\x01\x02"]), Code.INVALID_ARGUMENT, "neither 0 nor 1"),
    (request(tensor(datatype="BYTES"), raw_input_contents=[b"\x09\0\0\0a"]), Code.INVALID_ARGUMENT, "only 1 are left"),
    (
        request(tensor(datatype="BYTES"), raw_input_contents=[b"\x09\0"]),
        Code.INVALID_ARGUMENT,
        "ends within the length",
    ),
    (request(tensor(datatype="BYTES"), raw_input_contents=[b"\0\0\0\0"]), Code.INVALID_ARGUMENT, "holds 1 elements"),
    (request(GOOD, model="intent"), Code.INVALID_ARGUMENT, "the model has no input 'x'"),
    (
        request(GOOD, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y")]),
        Code.INVALID_ARGUMENT,
        "no output 'y'",
    ),
    (
        request(
            GOOD,
            outputs=[
                pb.ModelInferRequest.InferRequestedOutputTensor(
                    name="output", parameters={"classification": pb.InferParameter(int64_param=3)}
                )
            ],
        ),
        Code.INVALID_ARGUMENT,
        "that extension is not there",
    ),
    (
        request(tensor("text", "BYTES", (2,), bytes_contents=[b"a", b"refuse"]), model="intent"),
        Code.INVALID_ARGUMENT,
        "row 1: no refuse",
    ),
]


@pytest.mark.parametrize(("sent", "code", "says"), BAD)
async def test_bad_input(stub: Any, sent: pb.ModelInferRequest, code: grpc.StatusCode, says: str) -> None:
    """Each wrong reference and tensor ends the call with its status code and words, and the ids in the trailers."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(sent, timeout=20)
    assert caught.value.code() == code
    assert says in (caught.value.details() or "")
    assert dict(caught.value.trailing_metadata() or ())["x-request-id"]
    assert SEEN == [] or says == "row 1: no refuse"


async def test_unknown_models_have_no_metadata(stub: Any) -> None:
    """Readiness and metadata of what is not there are NOT_FOUND."""
    for call in (
        stub.ModelReady(pb.ModelReadyRequest(name="nix"), timeout=20),
        stub.ModelMetadata(pb.ModelMetadataRequest(name="intent", version="9"), timeout=20),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == Code.NOT_FOUND


async def test_listed(gateway: Running) -> None:
    """Reflection lists the service, and health knows it."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
        async for answer in stream:
            names = [service.name for service in answer.list_services_response.service]
            break
        assert "inference.GRPCInferenceService" in names
        asking = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
        async with asyncio.timeout(10):
            while (await health_pb2_grpc.HealthStub(channel).Check(asking)).status != SERVING:
                await asyncio.sleep(0.01)


async def test_loads_are_not_for_the_public_port(gateway: Running) -> None:
    """The repository extension is answered as what is not there."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        index = channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await index(b"", timeout=20)
    assert caught.value.code() == Code.UNIMPLEMENTED


async def test_without_a_pod(tmp_path: Path) -> None:
    """Without a pod nothing is ready and inference is UNAVAILABLE; a busy pod says when to come again."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "free")
    async with running(registry=registry) as served, grpc.aio.insecure_channel(served.addresses.grpc) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert not (await stub.ServerReady(pb.ServerReadyRequest(), timeout=20)).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="free"), timeout=20)).ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request(GOOD), timeout=20)
        assert caught.value.code() == Code.UNAVAILABLE
    pod = FakePod("a", behave=busy)
    await pod.start()
    try:
        async with (
            running(pod, registry=registry) as served,
            grpc.aio.insecure_channel(served.addresses.grpc) as channel,
        ):
            stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request(GOOD), timeout=20)
            assert dict(caught.value.trailing_metadata() or ())["retry-after"] == "7"
    finally:
        await pod.stop()
