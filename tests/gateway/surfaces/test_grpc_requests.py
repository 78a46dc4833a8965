"""What every gRPC service of a gateway does alike with a request: messages that are none, and deadlines in metadata."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from aiohttp import web
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.fakes import FakePod, Running, answer, hang, running
from gateway.handlers import handling, ready, refusing
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE
from marway_gateway.proto import prediction_pb2
from marway_gateway.proto.torchserve import inference_pb2
from marway_http.message_fields import FIELDS_MAX
from marway_http.proto import open_inference_pb2
from support.registry import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")

Code = grpc.StatusCode
FILES = (open_inference_pb2, prediction_pb2, inference_pb2, health_pb2, reflection_pb2)
METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.full_name != "grpc.health.v1.Health.List"  # grpc's own server has it not
]
GARBAGE = {
    "cut off": b"\x0a\xff",
    "field 0": b"\x00",
    "a group that does not end": b"\x0b",
    "a fixed32 of one byte": b"\x0d\x01",
    "a number without end": b"\xff" * 11,
    "text": b"hello world, this is no message",
    "many fields": b"\x12\x00" * (FIELDS_MAX + 1),
}


async def by_content_type(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer rows as a handler's, anything else as it came."""
    rows = request.headers["content-type"] == ROWS_CONTENT_TYPE
    return await (handling(refusing) if rows else answer)(pod, request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod() -> AsyncIterator[FakePod]:
    made = FakePod("a", behave=by_content_type)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, pod: FakePod) -> AsyncIterator[Running]:
    """A gateway over one pod and one model."""
    scratch = tmp_path_factory.mktemp("grpc")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish(registry, scratch, "intent")
    async with running(pod, registry=registry) as served:
        await ready(served)
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(gateway: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as opened:
        yield opened


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes, **options: Any) -> list[bytes]:
    """Return a method's answers to one message, as bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kinds: dict[tuple[bool, bool], Callable[..., Any]] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }
    sent = kinds[method.client_streaming, method.server_streaming](path)
    given = iter([data]) if method.client_streaming else data
    if not method.server_streaming:
        return [await sent(given, **options)]
    return [each async for each in sent(given, **options)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
async def test_garbage(channel: grpc.aio.Channel, method: MethodDescriptor) -> None:
    """What is no message of a method, or one of too many fields, is its caller's fault: INVALID_ARGUMENT."""
    for kind, data in GARBAGE.items():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, method, data, timeout=20)
        assert caught.value.code() == Code.INVALID_ARGUMENT, (kind, caught.value)
        assert "Exception" not in (caught.value.details() or ""), kind


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
async def test_another_methods_message(channel: grpc.aio.Channel, method: MethodDescriptor) -> None:
    """A message that is another method's is no error of the gateway's."""
    others = (
        prediction_pb2.PredictRequest(runId="intent", document="x" * 300),
        inference_pb2.PredictionsRequest(model_name="intent", input={"data": b"\xff\xfe"}),
        open_inference_pb2.ModelMetadataRequest(name="intent", version="\u00fc"),
        health_pb2.HealthCheckResponse(status=1),
    )
    for other in others:
        code = Code.OK
        try:
            await call(channel, method, other.SerializeToString(), timeout=1 if method.name == "Watch" else 20)
        except grpc.aio.AioRpcError as exc:
            code = exc.code()
        taken = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED}
        assert code in taken, type(other).__name__


def infer() -> bytes:
    request = open_inference_pb2.ModelInferRequest(model_name="intent")
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    return request.SerializeToString()


PREDICTIONS = inference_pb2.PredictionsRequest(model_name="intent", input={"data": b"x"}).SerializeToString()
PREDICTING = {
    "ModelInfer": infer(),
    "Predict": prediction_pb2.PredictRequest(runId="intent", document="x").SerializeToString(),
    "Predictions": PREDICTIONS,
    "StreamPredictions": PREDICTIONS,
    "StreamPredictions2": PREDICTIONS,
}
METHOD = {method.name: method for method in METHODS}


def code_within(answers: list[bytes]) -> tuple[int, str]:
    """Return how `StreamPredictions2` says that a request failed."""
    status = inference_pb2.PredictionResponse.FromString(answers[0]).status
    return status.code, status.message


@pytest.mark.parametrize("name", PREDICTING)
@pytest.mark.parametrize(
    ("timeout_s", "metadata", "most"),
    [(None, "20000", 20_000), (30, "20000", 20_000), (20, "30000", 21_000), (None, None, 60_000)],
)
async def test_the_earlier_deadline_counts(
    channel: grpc.aio.Channel, pod: FakePod, name: str, timeout_s: float | None, metadata: str | None, most: int
) -> None:
    """The metadata `x-request-timeout-ms` and the call's own deadline both count: the earlier is the pod's."""
    said = () if metadata is None else (("x-request-timeout-ms", metadata),)
    await call(channel, METHOD[name], PREDICTING[name], timeout=timeout_s, metadata=said)
    assert most - 10_000 < int(pod.requests[-1].headers["x-request-timeout-ms"]) <= most


@pytest.mark.parametrize("name", PREDICTING)
async def test_the_metadatas_deadline_passes(channel: grpc.aio.Channel, pod: FakePod, name: str) -> None:
    """A call without a deadline of its own ends at the metadata's."""
    pod.behave = hang
    try:
        said = (("x-request-timeout-ms", "300"),)
        if name == "StreamPredictions2":
            code, text = code_within(await call(channel, METHOD[name], PREDICTING[name], metadata=said))
            assert (code, "deadline of 0.3 s" in text) == (Code.DEADLINE_EXCEEDED.value[0], True)
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, METHOD[name], PREDICTING[name], metadata=said)
        assert caught.value.code() == Code.DEADLINE_EXCEEDED
        assert "deadline of 0.3 s" in (caught.value.details() or "")
    finally:
        pod.behave = by_content_type


@pytest.mark.parametrize("name", PREDICTING)
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "9" * 20])
async def test_wrong_deadlines(channel: grpc.aio.Channel, pod: FakePod, name: str, value: str) -> None:
    """A deadline that is no positive number of milliseconds is refused as over HTTP, before a pod is asked."""
    before = len(pod.requests)
    said, words = (("x-request-timeout-ms", value),), "give a whole number of milliseconds"
    if name == "StreamPredictions2":
        code, text = code_within(await call(channel, METHOD[name], PREDICTING[name], timeout=20, metadata=said))
        assert (code, words in text) == (Code.INVALID_ARGUMENT.value[0], True)
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, METHOD[name], PREDICTING[name], timeout=20, metadata=said)
        assert caught.value.code() == Code.INVALID_ARGUMENT
        assert words in (caught.value.details() or "")
    assert len(pod.requests) == before
