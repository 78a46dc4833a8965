"""TorchServe's gRPC inference API on the gateway, spoken by a client made from TorchServe's own .proto."""

from __future__ import annotations

import asyncio
import email
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from google.protobuf import descriptor_pb2, empty_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.fakes import FakePod, Running, broken_model, busy, hang, running, too_late
from gateway.surfaces.test_streaming import sending
from marway.errors import InvalidRequest
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.transport.multipart import encode_fields
from support.registry import publish, until
from support.torchserve_client import TorchServeClient, generate

MakePod = Callable[..., Awaitable[FakePod]]
HTTP = "org.pytorch.serve.http."


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, model_id="run-7")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> TorchServeClient:
    return generate(tmp_path_factory.mktemp("client"))


@asynccontextmanager
async def calling(
    theirs: TorchServeClient, *pods: FakePod, registry: Registry, **flags: object
) -> AsyncIterator[tuple[Running, Any]]:
    async with (
        running(*pods, registry=registry, **flags) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        yield gateway, theirs.stub(channel)


def test_copies_of_one_service_live_in_one_process(theirs: TorchServeClient) -> None:
    """The gateway's copy, the sidecar's and a client's own are one message type: none keeps another from loading."""
    from marway_gateway.proto.torchserve import inference_pb2 as gateways
    from marway_sidecar.backends.torchserve.proto import inference_pb2 as sidecars

    assert gateways.DESCRIPTOR.serialized_pb == sidecars.DESCRIPTOR.serialized_pb
    assert gateways.DESCRIPTOR.serialized_pb == theirs.messages.DESCRIPTOR.serialized_pb
    data = theirs.request("intent", data=b"x").SerializeToString()
    assert gateways.PredictionsRequest.FromString(data).model_name == "intent"


@pytest.mark.parametrize("key", ["data", "body"])
@pytest.mark.parametrize(("model", "version"), [("intent", ""), ("intent", "1.0"), ("intent", "PROD"), ("run-7", "")])
async def test_predictions(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient, model: str, version: str, key: str
) -> None:
    """A name, a version, a label or an id reaches the version; the one input goes as a raw body of bytes."""
    pod = await make_pod()
    async with calling(theirs, pod, registry=registry) as (gateway, stub):
        answer = await stub.Predictions(theirs.request(model, version, **{key: b"\x00wake"}), timeout=10)
        counted = await gateway.metric(
            "marway_gateway_request_duration_seconds_count"
            '{model="intent",outcome="ok",surface="torchserve_grpc",version="1.0"}'
        )
    assert answer.prediction == b"\x00wake"
    (seen,) = pod.requests
    assert (seen.path, seen.headers["content-type"]) == ("/predict/intent/1.0", "application/octet-stream")
    assert 9000 < int(seen.headers["x-request-timeout-ms"]) < 11_000
    assert counted == 1


async def test_named_inputs_are_fields(registry: Registry, make_pod: MakePod, theirs: TorchServeClient) -> None:
    """Several inputs, or one by a name of its own, reach the pod as the fields of a form, byte for byte."""
    pod = await make_pod()
    inputs = {"left": b"\x00\r\n--\xff", "right": b"", "text.0": b"a"}
    async with calling(theirs, pod, registry=registry) as (_, stub):
        await stub.Predictions(theirs.request("intent", **inputs))
        await stub.Predictions(theirs.request("intent", text=b"wake me"))
    for seen, expected in zip(pod.requests, (inputs, {"text": b"wake me"}), strict=True):
        head = f"content-type: {seen.headers['content-type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + seen.body)
        fields = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}  # type: ignore[union-attr]
        assert fields.keys() == expected.keys()
        assert encode_fields(expected) == (seen.body, seen.headers["content-type"])


def test_a_form_is_the_same_for_the_same_fields() -> None:
    """Order changes nothing, so that a cache sees equal requests; names that a form cannot hold are refused."""
    one, two = {"a": b"1", "b": b"2"}, {"b": b"2", "a": b"1"}
    assert encode_fields(one) == encode_fields(two)
    assert encode_fields(one)[1] != encode_fields({"a": b"12", "b": b""})[1]
    for name in ('a"b', "a\r\nb", "ü", "", "a\\b"):
        with pytest.raises(InvalidRequest, match="input name"):
            encode_fields({name: b"x"})


async def test_ids(registry: Registry, make_pod: MakePod, theirs: TorchServeClient) -> None:
    """Ids and trace context come in as metadata, reach the pod and come back with the model and its timing."""
    pod = await make_pod()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = {"x-request-id": "req-1", "x-request-group-id": "g-1", "traceparent": trace, "tracestate": "a=1"}
    async with calling(theirs, pod, registry=registry) as (_, stub):
        call = stub.Predictions(theirs.request("intent", data=b"x"), metadata=tuple(sent.items()))
        await call
        trailers = dict(await call.trailing_metadata())
    assert sent.items() <= pod.requests[0].headers.items()
    assert (trailers["x-request-id"], trailers["x-request-group-id"]) == ("req-1", "g-1")
    assert (trailers["x-model-name"], trailers["x-model-version"], trailers["x-model-id"]) == ("intent", "1.0", "run-7")
    assert "pod;dur=" in trailers["server-timing"]


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
@pytest.mark.parametrize(
    ("asked", "inputs", "code", "says", "kind"),
    [
        (("nix",), {"data": b"x"}, "NOT_FOUND", "the registry has intent", "archive.model.ModelNotFoundException"),
        (("intent", "9"), {"data": b"x"}, "NOT_FOUND", "it has 1.0", "archive.model.ModelVersionNotFoundException"),
        (("intent", "STG"), {"data": b"x"}, "NOT_FOUND", "PROD", "archive.model.ModelVersionNotFoundException"),
        (("",), {"data": b"x"}, "INVALID_ARGUMENT", "model", "http.BadRequestException"),
        (("intent",), {}, "INVALID_ARGUMENT", "no input", "http.BadRequestException"),
        (("intent",), {"data": b""}, "INVALID_ARGUMENT", "no body", "http.BadRequestException"),
        (("intent",), {'a"': b"", "b": b""}, "INVALID_ARGUMENT", "input name", "http.BadRequestException"),
        (("intent",), {"data": b"x" * 2000}, "RESOURCE_EXHAUSTED", "1000 bytes", "http.RequestEntityTooLargeException"),
    ],
)
async def test_wrong_requests(
    registry: Registry,
    make_pod: MakePod,
    theirs: TorchServeClient,
    method: str,
    asked: tuple[str, ...],
    inputs: dict[str, bytes],
    code: str,
    says: str,
    kind: str,
) -> None:
    """Each wrong request has its code, its reason and TorchServe's exception for it, and reaches no pod."""
    pod = await make_pod()
    async with calling(theirs, pod, registry=registry, max_body_bytes=1000) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ended(getattr(stub, method)(theirs.request(*asked, **inputs)))
    assert caught.value.code().name == code
    message, _, exception = (caught.value.details() or "").partition("\n")
    assert says in message
    assert exception == f"org.pytorch.serve.{kind}"
    assert "x-request-id" in dict(caught.value.trailing_metadata())
    assert not pod.requests


async def ended(call: Any) -> list[Any]:
    """Return all messages of a call, unary or not."""
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        return [await call]
    return [message async for message in call]


async def too_many_words(pod: FakePod, request: web.Request) -> web.StreamResponse:
    return web.Response(text="too many words", status=429, headers={OUTCOME: Outcome.ANSWERED})


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
@pytest.mark.parametrize(
    ("behave", "code", "details"),
    [
        (broken_model, "INVALID_ARGUMENT", f"KeyError: 'text'\n{HTTP}InternalServerException"),
        (too_many_words, "RESOURCE_EXHAUSTED", f"too many words\n{HTTP}ServiceUnavailableException"),
        (busy, "UNAVAILABLE", f"no pod can take intent 1.0 now.*\n{HTTP}ServiceUnavailableException"),
    ],
)
async def test_failures(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient, method: str, behave: Any, code: str, details: str
) -> None:
    """What a model or a pod fails with has its code and words, whether or not pieces were asked for."""
    async with calling(theirs, await make_pod(behave=behave), registry=registry) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError, match=details) as caught:
            await ended(getattr(stub, method)(theirs.request("intent", data=b"x")))
    assert caught.value.code().name == code
    if behave is busy:
        assert dict(caught.value.trailing_metadata())["retry-after"] == "7"


async def test_a_piece_comes_before_the_next_is_made(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient
) -> None:
    """Each piece is a message, in the caller's hand before the model has begun with the next."""
    go = asyncio.Event()
    pod = await make_pod(behave=sending(b"one ", b"two" * 50_000, b"three", go=go))
    async with calling(theirs, pod, registry=registry) as (_, stub):
        call = stub.StreamPredictions(theirs.request("intent", data=b"x"))
        messages = aiter(call)
        assert (await anext(messages)).prediction == b"one "
        assert not go.is_set()
        go.set()
        assert [message.prediction async for message in messages] == [b"two" * 50_000, b"three"]
        assert dict(await call.trailing_metadata())["x-model-version"] == "1.0"
        whole = await stub.Predictions(theirs.request("intent", data=b"x"))
    assert whole.prediction == b"one " + b"two" * 50_000 + b"three"


async def test_an_answer_in_one_is_one_piece(registry: Registry, make_pod: MakePod, theirs: TorchServeClient) -> None:
    """A version that does not stream answers a stream with one message."""
    async with calling(theirs, await make_pod(), registry=registry) as (_, stub):
        messages = await ended(stub.StreamPredictions(theirs.request("intent", data=b"wake")))
    assert [message.prediction for message in messages] == [b"wake"]


async def test_a_stream_that_breaks_ends_with_an_error(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient
) -> None:
    """When the pod is lost within a stream the call ends with an error, and no other pod is asked."""
    pods = [await make_pod(name, behave=sending(b"one ", then="break")) for name in "ab"]
    async with calling(theirs, *pods, registry=registry) as (_, stub):
        call = stub.StreamPredictions(theirs.request("intent", data=b"x"))
        assert (await call.read()).prediction == b"one "
        with pytest.raises(grpc.aio.AioRpcError, match="broke off") as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert sum(len(pod.requests) for pod in pods) == 1


async def test_a_client_that_leaves_ends_the_pods_work(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient
) -> None:
    """A cancelled stream closes the connection to the pod and is counted as cancelled."""
    pod = await make_pod(behave=sending(b"one ", then="hang"))
    async with calling(theirs, pod, registry=registry) as (gateway, stub):
        call = stub.StreamPredictions(theirs.request("intent", data=b"x"))
        await call.read()
        call.cancel()
        await until(lambda: pod.cancelled == 1)
        line = 'duration_seconds_count{model="intent",outcome="cancelled",surface="torchserve_grpc",version="1.0"}'
        while not await gateway.metric(f"marway_gateway_request_{line}"):
            pass


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
async def test_the_deadline_is_the_pods_too(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient, method: str
) -> None:
    """The call's deadline ends the pod's request as well."""
    pod = await make_pod(behave=hang)
    async with calling(theirs, pod, registry=registry) as (_, stub):

        async def ask(timeout_s: float) -> grpc.StatusCode:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ended(getattr(stub, method)(theirs.request("intent", data=b"x"), timeout=timeout_s))
            return caught.value.code()

        assert await too_late(ask, reached=lambda _: pod.requests) is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: pod.cancelled == len(pod.requests))


async def test_ping(registry: Registry, make_pod: MakePod, theirs: TorchServeClient) -> None:
    """`Ping` says Healthy while the gateway can serve and Unhealthy while it cannot."""
    pod = await make_pod(ready=False)
    async with calling(theirs, pod, registry=registry, health_interval_s=0.25) as (_, stub):
        assert json.loads((await stub.Ping(empty_pb2.Empty())).health) == {"status": "Unhealthy"}
        pod.ready = True
        while json.loads((await stub.Ping(empty_pb2.Empty())).health) != {"status": "Healthy"}:
            pass


async def test_reflection_describes_it(registry: Registry, theirs: TorchServeClient) -> None:
    """Reflection gives the service's file and all that it imports, which is what grpcurl asks for."""
    async with (
        running(registry=registry) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        symbol = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
        asked = [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol),
            reflection_pb2.ServerReflectionRequest(file_by_filename="google/rpc/status.proto"),
        ]
        answers = [each.file_descriptor_response async for each in stub.ServerReflectionInfo(iter(asked))]
    files = {name for each in answers for name in map(file_name, each.file_descriptor_proto)}
    assert {"inference.proto", "google/rpc/status.proto"} <= files


def file_name(serialized: bytes) -> str:
    return descriptor_pb2.FileDescriptorProto.FromString(serialized).name


async def test_a_reader_that_stops_is_left_at_the_deadline(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient
) -> None:
    """Who does not read the pieces holds the pod no longer than the gateway's own deadline."""
    pod = await make_pod(behave=sending(*[b"x" * 1_000_000] * 60, then="hang"))
    async with calling(theirs, pod, registry=registry) as (gateway, stub):
        calls: list[Any] = []

        async def read_one(timeout_s: float) -> bool:
            metadata = (("x-request-timeout-ms", f"{timeout_s * 1000:.0f}"),)
            calls.append(stub.StreamPredictions(theirs.request("intent", data=b"x"), metadata=metadata))
            with suppress(grpc.aio.AioRpcError):
                return await calls[-1].read() is not grpc.aio.EOF
            return False

        await too_late(read_one, reached=bool)
        await until(lambda: pod.cancelled == len(pod.requests))
        line = 'duration_seconds_count{model="intent",outcome="timeout",surface="torchserve_grpc",version="1.0"}'
        while not await gateway.metric(f"marway_gateway_request_{line}"):
            pass
        for call in calls:
            call.cancel()


async def test_each_request_of_a_sequence_is_answered(
    registry: Registry, make_pod: MakePod, theirs: TorchServeClient
) -> None:
    """`StreamPredictions2` answers in order with the sequence's id; one that fails says why, and the next goes on."""
    async with calling(theirs, await make_pod(), registry=registry) as (gateway, stub):
        asked = [
            theirs.request(model, data=data) for model, data in (("intent", b"a"), ("nix", b"b"), ("intent", b"c"))
        ]
        for request in asked:
            request.sequence_id = "s-1"
        answers = await ended(stub.StreamPredictions2(iter(asked), timeout=20))
        line = 'duration_seconds_count{model="intent",outcome="ok",surface="torchserve_grpc",version="1.0"}'
        counted = await gateway.metric(f"marway_gateway_request_{line}")
    assert [answer.sequence_id for answer in answers] == ["s-1"] * 3
    assert [answer.prediction for answer in answers] == [b"a", b"", b"c"]
    assert [answer.status.code for answer in answers] == [0, grpc.StatusCode.NOT_FOUND.value[0], 0]
    assert "ModelNotFoundException" in answers[1].status.message
    assert counted == 2


@pytest.mark.parametrize(
    ("rpc", "verb"),
    [
        ("RegisterModel", "marway publish"),
        ("UnregisterModel", "marway delete"),
        ("ScaleWorker", "marway serving"),
        ("SetDefault", "marway release"),
        ("DescribeModel", "marway show"),
        ("ListModels", "marway models"),
    ],
)
async def test_management_says_which_verb_does_it(registry: Registry, rpc: str, verb: str) -> None:
    """TorchServe's management service refuses each call with its exception's name, and the verb in its words."""
    async with running(registry=registry) as gateway, grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        call: Any = channel.unary_unary(f"/org.pytorch.serve.grpc.management.ManagementAPIsService/{rpc}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\x0a\x01x", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    message, _, exception = (caught.value.details() or "").partition("\n")
    assert f"`{verb}" in message
    assert exception == f"{HTTP}MethodNotAllowedException"
