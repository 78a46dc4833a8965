"""By whatever protocol a prediction comes and however it ends: its answer has an id, and there is one observation."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, answer, broken_model, busy, hang, running
from gateway.handlers import echo, handling, ready
from gateway.surfaces.test_streaming import sending
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import ROWS_CONTENT_TYPE
from marway.wire.headers import OUTCOME, PREDICTION_ID, URL_PATH, Outcome
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.proto.torchserve import inference_pb2, inference_pb2_grpc
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
Row = dict[str, Any]
Asked = tuple[str | None, Row]
"""The id that an answer had, and what its observation is to say."""

BODIES = ServingSettings(observe="bodies")
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["hello"]}
CHAT = {"model": "story", "messages": [{"role": "user", "content": "hello"}]}
HTTP: dict[str, tuple[str, Any]] = {
    "native": ("/predict/intent/PROD", b"hello"),
    "torchserve": ("/predictions/intent", b"hello"),
    "v1": ("/v1/models/intent:predict", {"instances": ["hello"]}),
    "open_inference": ("/v2/models/intent/infer", {"inputs": [TENSOR]}),
    "openai": ("/openai/v1/chat/completions", CHAT),
}
GRPC: dict[str, Any] = {
    "prediction_grpc": (
        lambda channel: prediction_pb2_grpc.PredictionServiceStub(channel).Predict,
        lambda model: prediction_pb2.PredictRequest(runId=model, document="hello"),
    ),
    "torchserve_grpc": (
        lambda channel: inference_pb2_grpc.InferenceAPIsServiceStub(channel).Predictions,
        lambda model: inference_pb2.PredictionsRequest(model_name=model, input={"data": b"hello"}),
    ),
    "open_inference_grpc": (
        lambda channel: open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer,
        lambda model: infer_request(model),
    ),
}
ENDS: dict[str, tuple[Any, str | None]] = {
    "ok": (None, None),
    "model_error": (broken_model, "model_error"),
    "unavailable": (busy, "no_pod_available"),
    "timeout": (hang, "deadline_exceeded"),
}


def infer_request(model: str, **more: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=(1,))
    tensor.contents.bytes_contents.append(b"hello")
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], **more)


async def model(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer each protocol's rows as a handler does that gives back what it gets."""
    if request.headers.get("content-type") == ROWS_CONTENT_TYPE:
        return await handling(echo)(pod, request)
    if URL_PATH in request.headers:
        return web.Response(text="once", headers={OUTCOME: Outcome.ANSWERED})
    return await answer(pod, request)


def deadline(expected: Row) -> dict[str, str]:
    """Return the header of a deadline that passes only where it is to: on a slow machine as well."""
    return {"x-request-timeout-ms": "400" if expected["outcome"] == "timeout" else "30000"}


async def over_http(gateway: Running, surface: str, **expected: Any) -> Asked:
    path, body = HTTP[surface]
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    got = await gateway.client.post(path, content=sent, headers=deadline(expected))
    output = got.content if got.headers.get("x-model-version") and expected["outcome"] == "ok" else None
    row = {"surface": surface, "status": str(got.status_code), "input": sent, "output": output, **expected}
    return got.headers.get(PREDICTION_ID), row


async def over_grpc(channel: Any, surface: str, **expected: Any) -> Asked:
    method, request = GRPC[surface]
    call = method(channel)(request("intent"), metadata=tuple(deadline(expected).items()))
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call
    code = (await call.code()).name
    row = {"surface": surface, "status": code, **expected}
    return dict(await call.trailing_metadata()).get(PREDICTION_ID), row


def kept(directory: Path) -> list[Row]:
    """Return all observations, with their models."""
    rows = []
    for path in sorted(directory.glob("model=*/date=*/hour=*/*.parquet")):
        name = path.relative_to(directory).parts[0].partition("=")[2]
        rows += [{**row, "model": name} for row in pq.ParquetFile(path).read().to_pylist()]
    return rows


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, serving=BODIES)
    publish(registry, tmp_path, "story", serving=BODIES.model_copy(update={"streaming": True}))


async def test_one_id_and_one_observation(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Each of eight protocols, ending well or in an error of the model, of the pods, or at the deadline."""
    pod = await make_pod(behave=model)
    asked: list[Asked] = []
    async with (
        running(pod, registry=registry, queue_timeout_s=0.05) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        await ready(gateway)
        for outcome, (behave, error) in ENDS.items():
            pod.behave = behave or model
            expected = {"outcome": outcome, "error": error, "bodies": "kept" if outcome == "ok" else "failed"}
            calls = [over_http(gateway, surface, **expected) for surface in HTTP]
            calls += [over_grpc(channel, surface, **expected) for surface in GRPC]
            asked += await asyncio.gather(*calls)
    rows = {row["prediction_id"]: row for row in kept(tmp_path / "registry" / "observations")}
    assert len(asked) == len(rows) == len(ENDS) * (len(HTTP) + len(GRPC))
    for prediction_id, expected in asked:
        row = rows[str(prediction_id)]
        assert {name: row[name] for name in expected} == expected
        assert row["version"] == "1.0"
        assert row["attempts"] >= 1
        assert row["client"] == "127.0.0.1"
        if "grpc" in row["surface"] and row["outcome"] == "ok":
            assert b"hello" in row["input"]
            assert b"hello" in row["output"]


async def test_streams_and_clients_that_leave(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """A stream is one prediction, however it ends; each of several in one call has its own id; who leaves is kept."""
    pod = await make_pod(behave=sending(b"one ", b"two"))
    expected: dict[str | None, Row] = {}
    streamed = {"bodies": "streamed", "output": None, "outcome": "ok", "input": b"hello"}
    async with (
        running(pod, registry=registry) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        await ready(gateway)
        theirs = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        asked = inference_pb2.PredictionsRequest(model_name="story", input={"data": b"hello"})
        for accept in ("*/*", "text/event-stream"):
            got = await gateway.predict("/predict/story", accept=accept)
            expected[got.headers[PREDICTION_ID]] = {**streamed, "surface": "native"}
        call = theirs.StreamPredictions(asked)
        assert b"".join([piece.prediction async for piece in call]) == b"one two"
        expected[dict(await call.trailing_metadata())[PREDICTION_ID]] = {**streamed, "surface": "torchserve_grpc"}
        pod.behave = sending(b"one ", b"two", then="break")
        async with gateway.client.stream("POST", "/predict/story", content=b"hello") as broken:
            with pytest.raises(Exception, match="incomplete"):
                await broken.aread()
        expected[broken.headers[PREDICTION_ID]] = {**streamed, "outcome": "unavailable", "error": "unavailable"}

        pod.behave = model
        messages = [infer_request("intent", id="1"), infer_request("nix", id="2"), infer_request("intent", id="3")]
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        ids = {}
        async for response in stub.ModelStreamInfer(iter(messages)):
            ids[response.infer_response.id] = response.infer_response.parameters["marway_prediction_id"].string_param
        assert len(set(ids.values())) == 3
        for each in ("1", "3"):
            expected[ids[each]] = {"surface": "open_inference_grpc", "bodies": "kept", "outcome": "ok"}
        call = theirs.StreamPredictions2(iter([asked]))
        assert [response.prediction async for response in call] == [b"hello"]
        expected[dict(await call.trailing_metadata())[PREDICTION_ID]] = {"surface": "torchserve_grpc", "bodies": "kept"}

        pod.behave = hang
        url = urlsplit(gateway.addresses.gateway)
        pod.requests.clear()
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"POST /predict/intent HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")
        leaving = theirs.Predictions(inference_pb2.PredictionsRequest(model_name="intent", input={"data": b"hello"}))
        await until(lambda: len(pod.requests) == 2)
        writer.close()
        leaving.cancel()
        await until(lambda: pod.cancelled == 2)
    rows = kept(tmp_path / "registry" / "observations")
    left = [row for row in rows if row["outcome"] == "cancelled"]
    assert Counter((row["surface"], row["bodies"]) for row in left) == {
        ("native", "failed"): 1,
        ("torchserve_grpc", "failed"): 1,
    }
    others = {row["prediction_id"]: row for row in rows if row["outcome"] != "cancelled"}
    assert others.keys() == expected.keys()
    assert len(rows) == len(expected) + 2
    for prediction_id, said in expected.items():
        assert {name: others[str(prediction_id)][name] for name in said} == said


async def test_what_is_kept(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Only predictions of versions that are observed, with bodies where those are wanted and not too large."""
    publish(registry, tmp_path, "off", serving=ServingSettings(observe="off"))
    publish(registry, tmp_path, "never", serving=ServingSettings(observe="bodies", observe_rate=0))
    publish(registry, tmp_path, "plain")
    publish(registry, tmp_path, "cached", serving=ServingSettings(observe="bodies", cache=True))
    pod = await make_pod(behave=model)
    small, large = b"x" * 900, b"x" * 5000
    ids: dict[str, str | None] = {}
    async with running(pod, registry=registry, observations_body_bytes=1000, buffered_body_bytes=4096) as gateway:
        await ready(gateway)
        for name, path, body in (
            ("off", "/predict/off", small),
            ("never", "/predict/never", small),
            ("plain", "/predict/plain", small),
            ("first", "/predict/cached", small),
            ("again", "/predict/cached", small),
            ("large", "/predict/intent", b"x" * 1001),
            ("passed on", "/predict/intent", large),
            ("nobody", "/predict/nix", small),
            ("explained", "/explanations/intent", small),
        ):
            ids[name] = (await gateway.predict(path, body)).headers.get(PREDICTION_ID)
        head = json.dumps({"inputs": [{**TENSOR, "data": None, "parameters": {"binary_data_size": 9}}]}).encode()
        sent = head.replace(b', "data": null', b"") + b"\5\0\0\0hello"
        got = await gateway.predict("/v2/models/intent/infer", sent, inference_header_content_length=str(len(sent) - 9))
        ids["binary"] = got.headers[PREDICTION_ID]
        assert (await gateway.client.get("/models")).headers.get(PREDICTION_ID) is None
    rows = {row["prediction_id"]: row for row in kept(tmp_path / "registry" / "observations")}
    assert ids.pop("explained") is None
    assert None not in ids.values()
    assert len(set(ids.values())) == len(ids)
    assert not {ids.pop("off"), ids.pop("never"), ids.pop("nobody")} & rows.keys()
    found = {name: rows.pop(str(prediction_id)) for name, prediction_id in ids.items()}
    assert not rows
    assert {name: (row["bodies"], row["input"], row["output"], row["cache"]) for name, row in found.items()} == {
        "plain": ("off", None, None, None),
        "first": ("kept", small, small, "miss"),
        "again": ("kept", small, small, "hit"),
        "large": ("too_large", None, None, None),
        "passed on": ("too_large", None, None, None),
        "binary": ("kept", found["binary"]["input"], got.content, None),
    }
    tensor = json.loads(found["binary"]["input"])["inputs"][0]
    assert (tensor["data"], found["binary"]["input_type"]) == (["hello"], "application/json")
