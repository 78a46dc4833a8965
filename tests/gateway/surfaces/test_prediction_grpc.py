import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.fakes import FakePod, Running, broken_model, busy, hang, running, too_late
from marway import errors
from marway.errors import MarwayError
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.surfaces.grpc.status import code_of
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, model_id="run-7")


@asynccontextmanager
async def calling(
    *pods: FakePod, registry: Registry, **flags: object
) -> AsyncIterator[tuple[Running, grpc.aio.Channel]]:
    async with (
        running(*pods, registry=registry, **flags) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        yield gateway, channel


def request(run_id: str = "intent", document: str = "wake me") -> prediction_pb2.PredictRequest:
    return prediction_pb2.PredictRequest(runId=run_id, document=document)


@pytest.mark.parametrize("run_id", ["intent", "run-7"])
async def test_predict(registry: Registry, make_pod: MakePod, run_id: str) -> None:
    """A model name or a model id predicts; the document goes as plain text and the answer comes as text."""
    pod = await make_pod()
    async with calling(pod, registry=registry) as (_, channel):
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        answer = await stub.Predict(request(run_id, "weck mich früh"), timeout=10)
    assert answer.response == "weck mich früh"
    assert pod.requests[0].path == "/predict/intent/1.0"
    assert pod.requests[0].headers["content-type"] == "text/plain; charset=utf-8"
    # The 10 s of the call and not the 60 s of the default; gRPC rounds a deadline up on its way.
    assert 9000 < int(pod.requests[0].headers["x-request-timeout-ms"]) < 11_000


async def test_ids(registry: Registry, make_pod: MakePod) -> None:
    """Ids come in as metadata, reach the pod and come back with the model and its timing."""
    pod = await make_pod()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with calling(pod, registry=registry) as (_, channel):
        call = prediction_pb2_grpc.PredictionServiceStub(channel).Predict(
            request(), metadata=(("x-request-id", "req-1"), ("x-request-group-id", "g-1"), ("traceparent", trace))
        )
        await call
        trailers = dict(await call.trailing_metadata())
    assert trailers["x-request-id"] == pod.requests[0].headers["x-request-id"] == "req-1"
    assert trailers["x-request-group-id"] == pod.requests[0].headers["x-request-group-id"] == "g-1"
    assert pod.requests[0].headers["traceparent"] == trace
    assert (trailers["x-model-name"], trailers["x-model-version"], trailers["x-model-id"]) == ("intent", "1.0", "run-7")
    assert "pod;dur=" in trailers["server-timing"]


@pytest.mark.parametrize(
    ("run_id", "document", "code", "says"),
    [
        ("nix", "x", grpc.StatusCode.NOT_FOUND, "the registry has intent"),
        ("", "x", grpc.StatusCode.INVALID_ARGUMENT, "runId is empty"),
        ("in tent", "x", grpc.StatusCode.INVALID_ARGUMENT, "cannot be a model id"),
        ("intent/1.0", "x", grpc.StatusCode.INVALID_ARGUMENT, "has a version or label"),
        ("intent", "", grpc.StatusCode.INVALID_ARGUMENT, "no body"),
        ("intent", "x" * 2000, grpc.StatusCode.RESOURCE_EXHAUSTED, "at most 1000 bytes"),
    ],
)
async def test_bad_requests(
    registry: Registry, make_pod: MakePod, run_id: str, document: str, code: grpc.StatusCode, says: str
) -> None:
    """Each wrong request has its status code, says what is wrong, and reaches no pod."""
    pod = await make_pod()
    async with calling(pod, registry=registry, max_body_bytes=1000) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request(run_id, document))
    assert caught.value.code() == code
    assert says in (caught.value.details() or "")
    assert "x-request-id" in dict(caught.value.trailing_metadata())
    assert not pod.requests


async def test_model_error(registry: Registry, make_pod: MakePod) -> None:
    """A model's own failure has the code that stands for its status, and its words."""
    pod = await make_pod(behave=broken_model)
    async with calling(pod, registry=registry) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request())
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "KeyError: 'text'"


async def test_answer_with_an_error_status(registry: Registry, make_pod: MakePod) -> None:
    """An answer to which the model gave an error status is an error here, with its text."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return web.Response(text="too many words", status=429, headers={OUTCOME: Outcome.ANSWERED})

    pod = await make_pod(behave=behave)
    async with calling(pod, registry=registry) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many words")


async def test_streaming_answer_is_joined(registry: Registry, make_pod: MakePod) -> None:
    """An answer that streams comes back as one text."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED})
        await answer.prepare(request)
        await answer.write(b"one ")
        await answer.write(b"two")
        return answer

    pod = await make_pod(behave=behave)
    async with calling(pod, registry=registry) as (_, channel):
        assert (await prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request())).response == "one two"


async def test_unavailable(registry: Registry, make_pod: MakePod) -> None:
    """When no pod can take the request the code says so, and metadata says when to try again."""
    pod = await make_pod(behave=busy)
    async with calling(pod, registry=registry) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["retry-after"] == "7"


async def test_deadline(registry: Registry, make_pod: MakePod) -> None:
    """The caller's deadline ends the pod's request as well."""
    pod = await make_pod(behave=hang)
    async with calling(pod, registry=registry) as (_, channel):

        async def ask(timeout_s: float) -> grpc.StatusCode:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request(), timeout=timeout_s)
            return caught.value.code()

        assert await too_late(ask, reached=lambda _: pod.requests) is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: pod.cancelled == len(pod.requests))


async def test_client_that_goes_away(registry: Registry, make_pod: MakePod) -> None:
    """A cancelled call cancels the pod's request."""
    pod = await make_pod(behave=hang)
    async with calling(pod, registry=registry) as (gateway, channel):
        call = prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request())
        asking = asyncio.ensure_future(call)
        await until(lambda: pod.requests)
        call.cancel()
        await asyncio.wait({asking})
        await until(lambda: pod.cancelled == 1)
        line = (
            "marway_gateway_request_duration_seconds_count"
            '{model="intent",outcome="cancelled",surface="prediction_grpc",version="1.0"}'
        )
        while not await gateway.metric(line):
            pass


async def test_health(registry: Registry, make_pod: MakePod) -> None:
    """The gRPC health service follows the gateway's readiness, for the server and for the service."""
    pod = await make_pod()
    async with calling(pod, registry=registry, health_interval_s=0.25) as (_, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        for service in (
            "",
            "prediction.PredictionService",
            "org.pytorch.serve.grpc.inference.InferenceAPIsService",
        ):
            asked = health_pb2.HealthCheckRequest(service=service)
            pod.ready = True
            while (await stub.Check(asked)).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            pod.ready = False
            while (await stub.Check(asked)).status != health_pb2.HealthCheckResponse.NOT_SERVING:
                pass


async def test_reflection(registry: Registry) -> None:
    """Reflection lists the services, so that grpcurl needs no .proto file."""
    async with calling(registry=registry) as (_, channel):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = [service.name async for answer in answers for service in answer.list_services_response.service]
    assert set(listed) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "org.pytorch.serve.grpc.inference.InferenceAPIsService",
        "prediction.PredictionService",
    }


CODES = {
    "ABORTED": "Conflict",
    "ALREADY_EXISTS": "VersionConflict",
    "DATA_LOSS": "ArchiveCorrupt",
    "DEADLINE_EXCEEDED": "DeadlineExceeded RequestTooSlow",
    "FAILED_PRECONDITION": "AnswersDiffer ContractBroken LabelProtected ProofMissing ReleaseRefused StateConflict",
    "INTERNAL": "InvalidRecord InvalidSettings LoadFailed MarwayError ModelError",
    "INVALID_ARGUMENT": (
        "InvalidArchive InvalidGraph InvalidInput InvalidReference InvalidRequest Misdirected UnsupportedMedia"
    ),
    "NOT_FOUND": "LabelNotFound ModelNotFound NotFound PodNotFound RolloutNotFound SequenceNotFound VersionNotFound",
    "PERMISSION_DENIED": "ForeignOrigin",
    "RESOURCE_EXHAUSTED": "BodyTooLarge NoRoomToSpare Overloaded",
    "UNAUTHENTICATED": "Unauthenticated",
    "UNAVAILABLE": "Draining ModelLoading NoPodAvailable RegistryUnavailable RuntimeDown Unavailable",
    "UNIMPLEMENTED": "Unimplemented",
    "UNKNOWN": "OutcomeUnknown",
}


def test_every_error_has_its_code() -> None:
    """Every error has the gRPC status that it always had."""
    kinds = {getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    found = {kind.__name__: code_of(kind("x")).name for kind in kinds if issubclass(kind, MarwayError)}
    assert found == {kind: code for code, kinds_of in CODES.items() for kind in kinds_of.split()}


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "NOT_FOUND"),
     (408, "INVALID_ARGUMENT"), (409, "ABORTED"), (413, "INVALID_ARGUMENT"), (422, "INVALID_ARGUMENT"),
     (429, "RESOURCE_EXHAUSTED"), (500, "INTERNAL"), (501, "UNIMPLEMENTED"), (503, "UNAVAILABLE"),
     (504, "DEADLINE_EXCEEDED"), (599, "INTERNAL")],
)  # fmt: skip
def test_a_models_own_status_has_its_code(status: int, code: str) -> None:
    """A status that a model chose becomes the gRPC status that is nearest to it."""
    assert code_of(errors.ModelError("x", status=status)).name == code
