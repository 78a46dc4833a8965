"""Requests of a divided label, through a gateway: who gets them, what their callers are told, what is kept of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, answer, broken_model, busy, hang, hang_up, running
from gateway.handlers import TEXT, echo, handling, ready
from gateway.observe.test_every_ending import GRPC, HTTP, TENSOR, infer_request, kept, model
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.headers import OUTCOME, READY_ONLY, TRAFFIC, Outcome
from marway_gateway.proto.torchserve import inference_pb2, inference_pb2_grpc
from marway_http.proto import open_inference_pb2_grpc
from support.dividing import divide, held, traffic_of
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
STREAMING = ServingSettings(streaming=True)
BOTH = held("1.0", "2.0", models=("intent", "story"))


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    """Two models, each with 1.0 at PROD and 2.0, which is to take its place."""
    for name, serving in (("intent", ServingSettings()), ("story", STREAMING)):
        publish(registry, tmp_path, name, serving=serving)
        publish(registry, tmp_path, name, "2.0", label=None, serving=serving)


def versions(pod: FakePod) -> list[str]:
    return [seen.path.rpartition("/")[2] for seen in pod.requests]


async def over_all(
    gateway: Running, *, name: str = "intent", header: str = TRAFFIC, parameter: str = "marway_traffic", **headers: str
) -> dict[str, str | None]:
    """Ask over every surface; return what each was told of its side, or whatever else ``header`` says."""
    told: dict[str, str | None] = {}
    for surface, (path, body) in HTTP.items():
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        got = await gateway.client.post(path, content=sent, headers=headers)
        assert got.status_code == 200, got.text
        told[surface] = got.headers.get(header)
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        for surface, (method, request) in GRPC.items():
            call = method(channel)(request(name), metadata=tuple(headers.items()))
            await call
            told[surface] = dict(await call.trailing_metadata()).get(header)
        theirs = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        streamed = theirs.StreamPredictions(
            inference_pb2.PredictionsRequest(model_name=name, input={"data": b"hello"}),
            metadata=tuple(headers.items()),
        )
        assert [piece.prediction async for piece in streamed] == [b"hello"]
        told["torchserve_grpc_stream"] = dict(await streamed.trailing_metadata()).get(header)
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        async for response in stub.ModelStreamInfer(iter([infer_request(name)]), metadata=tuple(headers.items())):
            parameters = response.infer_response.parameters
            told["open_inference_stream"] = parameters[parameter].string_param if parameter in parameters else None
    return told


@pytest.mark.parametrize(("percent", "side"), [(100, "candidate"), (0, "base")])
async def test_every_surface(registry: Registry, make_pod: MakePod, tmp_path: Path, percent: float, side: str) -> None:
    """Whatever the protocol, a label's caller gets the version of its side, is told it, and it is kept and counted."""
    pod = await make_pod(behave=model, models=BOTH)
    divide(registry, "intent", traffic_of(percent=percent))
    divide(registry, "story", traffic_of(percent=percent))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        told = await over_all(gateway)
        counted = {
            name: await gateway.metric(
                f'marway_gateway_traffic_requests_total{{label="PROD",model="{name}",role="{side}"}}'
            )
            for name in ("intent", "story")
        }
    assert set(told.values()) == {side}
    assert set(versions(pod)) == {"2.0" if side == "candidate" else "1.0"}
    assert counted == {"intent": len(told) - 1, "story": 1}
    assert {seen.headers.get(READY_ONLY) for seen in pod.requests} == {"1" if side == "candidate" else None}
    rows = kept(tmp_path / "registry" / "observations")
    assert len(rows) == len(told)
    assert {(row["role"], row["label"], row["version"]) for row in rows} == {
        (side, "PROD", "2.0" if side == "candidate" else "1.0")
    }


async def test_exact_versions_ids_and_other_labels_are_never_diverted(registry: Registry, make_pod: MakePod) -> None:
    """Who names a version or an id gets that, and is told of no side; so it is where there are shadow copies alone."""
    registry.release("intent", "1.0", label="STG", by="test")
    pod = await make_pod(models=BOTH)
    divide(registry, "intent", traffic_of())
    divide(registry, "story", traffic_of(rollout=None, candidate=None, shadow=({"version": "2.0", "percent": 100},)))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        for path in ("intent/1.0", "run-intent-1.0", "intent/STG", "story"):
            got = await gateway.predict(f"/predict/{path}")
            assert (got.headers["x-model-version"], got.headers.get(TRAFFIC)) == ("1.0", None), path
        got = await gateway.predict("/predict/intent/2.0")
        assert (got.headers["x-model-version"], got.headers.get(TRAFFIC)) == ("2.0", None)
        assert (await gateway.predict("/predict/intent/PROD")).headers[TRAFFIC] == "candidate"


async def test_errors_say_the_side_too(registry: Registry, make_pod: MakePod) -> None:
    """A candidate that fails a request says so to its caller: nothing is asked a second time."""
    pod = await make_pod(models=BOTH, behave=broken_model)
    divide(registry, "intent", traffic_of())
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        got = await gateway.predict()
    assert (got.status_code, got.headers[TRAFFIC], got.headers["x-model-version"]) == (422, "candidate", "2.0")
    assert versions(pod) == ["2.0"]


async def test_two_gateways_put_a_caller_on_one_side(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Over HTTP and gRPC, on either gateway, whoever has the same id, group or header is on the same side."""
    publish(registry, tmp_path, "third")
    publish(registry, tmp_path, "third", "2.0", label=None)
    by = {
        "intent": ("request", "x-request-id"),
        "story": ("group", "x-request-group-id"),
        "third": ("header:X-User", "x-user"),
    }
    pod = await make_pod(models=held("1.0", "2.0", models=by))
    for name, (sticky, _) in by.items():
        divide(registry, name, traffic_of(percent=50, sticky=sticky))
    async with (
        running(pod, registry=registry) as one,
        running(pod, registry=registry) as other,
        grpc.aio.insecure_channel(other.addresses.grpc) as channel,
    ):
        await ready(one)
        await ready(other)
        method, request = GRPC["torchserve_grpc"]
        for name, (_, header) in by.items():
            sides = []
            for number in range(16):
                said = {header: f"caller-{number}"}
                told = [await each.client.post(f"/predict/{name}", content=b"x", headers=said) for each in (one, other)]
                call = method(channel)(request(name), metadata=tuple(said.items()))
                await call
                trailers = dict(await call.trailing_metadata())
                sides.append({*(got.headers[TRAFFIC] for got in told), trailers[TRAFFIC]})
            assert all(len(side) == 1 for side in sides)
            assert {side for each in sides for side in each} == {"base", "candidate"}


async def test_a_change_is_followed(registry: Registry, make_pod: MakePod) -> None:
    """A rollout that begins, goes on or ends holds for requests as a moved label does: when the state is read again."""
    pod = await make_pod(models=BOTH)
    async with running(pod, registry=registry, state_ttl_s=0.2) as gateway:
        await ready(gateway)
        assert TRAFFIC not in (await gateway.predict()).headers
        for traffic, told in ((traffic_of(percent=0), "base"), (traffic_of(), "candidate"), (None, None)):
            divide(registry, "intent", traffic)
            async with asyncio.timeout(2):
                while (await gateway.predict()).headers.get(TRAFFIC) != told:
                    await asyncio.sleep(0.02)


async def test_a_candidate_that_is_not_ready_gets_nothing(registry: Registry, make_pod: MakePod) -> None:
    """Nobody waits for its load: the base answers, the pod is asked to load it, and from then on it has its callers."""
    pod = await make_pod(models=held("1.0"))
    pod.may_load = asyncio.Event()
    divide(registry, "intent", traffic_of())
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        got = await gateway.predict()
        assert (got.status_code, got.headers[TRAFFIC], got.headers["x-model-version"]) == (200, "base", "1.0")
        await until(lambda: pod.loads == ["/models/intent/2.0/load"])
        assert (await gateway.predict()).headers[TRAFFIC] == "base"
        pod.may_load.set()
        async with asyncio.timeout(10):
            while (await gateway.predict()).headers[TRAFFIC] == "base":
                await asyncio.sleep(0.01)
    assert pod.requests[-1].path == "/predict/intent/2.0"


@pytest.mark.parametrize("alike", [True, False])
async def test_a_candidate_that_is_lost_on_the_way(
    registry: Registry, make_pod: MakePod, tmp_path: Path, alike: bool
) -> None:
    """Where no pod takes a candidate's request after all, the base answers it, asked in the base's own words."""
    candidate = "2.0"
    if not alike:
        candidate = "3.0"
        for name, serving in (("intent", ServingSettings()), ("story", STREAMING)):
            publish(registry, tmp_path, name, candidate, label=None, signature=TEXT, serving=serving)

    async def losing(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return await (model if request.path.endswith("1.0") else busy)(pod, request)

    pod = await make_pod(behave=losing, models=held("1.0", candidate, models=("intent", "story")))
    for name in ("intent", "story"):
        divide(registry, name, traffic_of(candidate))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        told = await over_all(gateway)
        infer = [
            await gateway.client.post(f"/v2/models/intent{path}/infer", json={"inputs": [TENSOR]})
            for path in ("", "/versions/1.0")
        ]
    assert set(told.values()) == {"base"}
    assert versions(pod)[: 2 * len(told)] == [candidate, "1.0"] * len(told)
    names = [got.json().get("outputs", [{}])[0].get("name") for got in infer]
    assert names[0] == names[1] != "prediction", "answers are read as the base's"


async def test_nobody_queues_for_a_candidate(registry: Registry, make_pod: MakePod) -> None:
    """Where a candidate has as many requests as it may have, further callers get the base at once; so do jobs' rows."""
    pod = await make_pod(models=BOTH)

    async def hanging(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return await (answer if request.path.endswith("1.0") else hang)(pod, request)

    pod.behave = hanging
    divide(registry, "intent", traffic_of())
    async with running(pod, registry=registry, max_requests_per_version=1, drain_timeout_s=0.1) as gateway:
        await ready(gateway)
        first = asyncio.create_task(gateway.predict(x_request_timeout_ms="60000"))
        await until(lambda: versions(pod) == ["2.0"])
        assert (await gateway.predict()).headers[TRAFFIC] == "base"
        first.cancel()
        await until(lambda: pod.cancelled == 1)
        job = await gateway.predict(x_marway_priority="batch")
        assert (job.status_code, job.headers["x-model-version"], job.headers.get(TRAFFIC)) == (200, "1.0", None)
    assert versions(pod) == ["2.0", "1.0", "1.0"]


async def test_a_pod_that_died_of_the_candidates_request(registry: Registry, make_pod: MakePod) -> None:
    """What a candidate began and lost is answered by the base, and counts as the candidate's failure."""

    async def dying(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return await (hang_up if request.path.endswith("2.0") else answer)(pod, request)

    dies, lives = await make_pod("a", behave=dying, models=BOTH), await make_pod("b", models=held("1.0"))
    divide(registry, "intent", traffic_of())
    async with running(dies, lives, registry=registry) as gateway:
        await ready(gateway)
        got = await gateway.predict()
    assert (got.status_code, got.headers[TRAFFIC]) == (200, "base")
    assert versions(dies)[0] == "2.0"


async def test_answers_that_are_given_again(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """The base's kept answers are never a candidate's, nor the other way round; nor where the candidate is lost."""
    for version in ("1.0", "2.0"):
        publish(
            registry,
            tmp_path,
            "cached",
            version,
            label="PROD" if version == "1.0" else None,
            serving=ServingSettings(cache=True),
        )

    async def which(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.path, headers={OUTCOME: Outcome.ANSWERED})

    async def losing(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return await (which if request.path.endswith("1.0") else busy)(pod, request)

    pod = await make_pod(behave=losing, models=held("1.0", "2.0", models=("cached",)))
    divide(registry, "cached", traffic_of())
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        assert (await gateway.predict("/predict/cached")).text.endswith("1.0")
        pod.behave = which
        got = await gateway.predict("/predict/cached")
        assert (got.text[-3:], got.headers[TRAFFIC], got.headers["x-cache"]) == ("2.0", "candidate", "miss")
        got = await gateway.predict("/predict/cached")
        assert (got.text[-3:], got.headers[TRAFFIC], got.headers["x-cache"]) == ("2.0", "candidate", "hit")
        got = await gateway.predict("/predict/cached/1.0")
        assert (got.text[-3:], got.headers["x-cache"]) == ("1.0", "hit")


async def test_rows_of_one_request_go_one_way(registry: Registry, make_pod: MakePod) -> None:
    """However many rows a request has, one version answers it."""
    pod = await make_pod(behave=handling(echo), models=BOTH)
    divide(registry, "intent", traffic_of(percent=50))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        for _ in range(12):
            got = await gateway.client.post("/v1/models/intent:predict", json={"instances": ["a", "b", "c", "d"]})
            assert got.json() == {"predictions": ["a", "b", "c", "d"]}
    assert len(pod.requests) == 12
    assert set(versions(pod)) == {"1.0", "2.0"}
