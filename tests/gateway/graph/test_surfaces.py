"""A graph over every protocol: asked, refused by a node, told what it takes, and whether it can be asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, running
from gateway.handlers import ready
from marway.errors import ModelError
from marway.records import Signature, TensorSpec
from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, decode_rows, encode_answers
from marway.wire.headers import OUTCOME, Outcome
from marway.wire.problems import CONTENT_TYPE, problem_of
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.proto.torchserve import inference_pb2, inference_pb2_grpc
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.graphs import publish_graph
from support.registry import publish

# Each protocol with a gateway of its own; that a graph is answered at all: test_in_a_gateway.py.
pytestmark = pytest.mark.extended

TEXTS = Signature(
    inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)),),
    outputs=(TensorSpec(name="said", datatype="BYTES", shape=(-1,)),),
)
GRAPH = {
    "nodes": {"all": {"kind": "sequence", "nodes": ["low", "up"]}}
    | {name: {"kind": "model", "model": name} for name in ("low", "up")},
    "start": "all",
}
SAYS = "node up (up 1.0): no refusals"


def said(model: str, text: str) -> str:
    if model == "up" and "refuse" in text:
        raise ModelError("no refusals", status=422)
    return f"{text}!" if model == "low" else text.upper()


async def speaking(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer a text, or rows of them, as a sidecar does."""
    model, body = request.path.split("/")[2], pod.requests[-1].body
    headers = {"content-type": ROWS_CONTENT_TYPE, OUTCOME: Outcome.ANSWERED}
    if request.headers["content-type"] == ROWS_CONTENT_TYPE:
        answers = []
        for row in decode_rows(body):
            try:
                text = bytes(row.parts[0].value).decode()
                answers.append(Answer(200, said(model, text).encode(), "text"))
            except ModelError as exc:
                answers.append(Answer(exc.status, exc.message.encode(), "error"))
        return web.Response(body=encode_answers(answers), headers=headers)
    headers["content-type"] = "text/plain; charset=utf-8"
    try:
        return web.Response(body=said(model, body.decode()).encode(), headers=headers)
    except ModelError as exc:
        exc.model, exc.version = model, "1.0"
        problem, _ = problem_of(exc)
        return web.Response(
            body=problem.body(),
            status=422,
            headers={"content-type": CONTENT_TYPE, OUTCOME: Outcome.MODEL_ERROR},
        )


@pytest.fixture
async def gateway(registry: Registry, tmp_path: Path) -> AsyncIterator[Running]:
    for name in ("low", "up"):
        publish(registry, tmp_path, name, signature=TEXTS)
    publish_graph(registry, tmp_path, GRAPH, signature=TEXTS)
    pod = FakePod("a", behave=speaking)
    await pod.start()
    try:
        async with running(pod, registry=registry) as served:
            await ready(served)
            yield served
    finally:
        await pod.stop()


async def test_over_http(gateway: Running) -> None:
    """Marway's own protocol, TorchServe's, v1 and v2: the answer of both nodes, or the node's error in the protocol's
    own form, with the node's name in it.
    """

    async def asked(path: str, body: Any) -> tuple[int, Any]:
        content, kind = (
            (body.encode(), "text/plain") if isinstance(body, str) else (json.dumps(body).encode(), "application/json")
        )
        got = await gateway.client.post(path, content=content, headers={"content-type": kind})
        is_json = "json" in got.headers["content-type"]
        return got.status_code, got.json() if is_json else got.text

    def tensor(text: str) -> Any:
        return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]}

    assert await asked("/predict/tour", "a") == (200, "A!")
    status, problem = await asked("/predict/tour", "refuse")
    assert (status, problem["node"], problem["detail"]) == (422, "up", SAYS)
    assert await asked("/predictions/tour", "a") == (200, "A!")
    assert (await asked("/predictions/tour/1.0", "refuse"))[1]["message"].startswith(SAYS)
    assert await asked("/v1/models/tour:predict", {"instances": ["a", "b"]}) == (200, {"predictions": ["A!", "B!"]})
    status, refused = await asked("/v1/models/tour:predict", {"instances": ["a", "refuse"]})
    assert (status, "node up (up 1.0): no refusals" in refused["error"]) == (422, True)
    status, answer = await asked("/v2/models/tour/infer", tensor("a"))
    assert (status, answer["outputs"][0]["data"], answer["model_name"]) == (200, ["A!"], "tour")
    status, refused = await asked("/v2/models/tour/infer", tensor("refuse"))
    assert (status, "node up" in refused["error"]) == (422, True)
    told = (await gateway.client.get("/v2/models/tour")).json()
    assert (told["platform"], told["inputs"][0]["name"], told["versions"]) == ("graph", "text", ["1.0"])
    assert (await gateway.client.get("/v1/models/tour")).json()["ready"] is True
    assert (await gateway.client.get("/models/tour/versions/PROD")).json()["backend"] == "graph"
    assert (await gateway.client.get("/openai/v1/models/tour")).json()["id"] == "tour"


async def test_over_grpc(gateway: Running) -> None:
    """The same over v2's, TorchServe's and the book's services: a status, and the node's name in its details."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        v2 = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        theirs = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        book = prediction_pb2_grpc.PredictionServiceStub(channel)

        def message(text: bytes) -> pb.ModelInferRequest:
            contents = pb.InferTensorContents(bytes_contents=[text])
            given = pb.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[1], contents=contents)
            return pb.ModelInferRequest(model_name="tour", inputs=[given])

        async def refused(call: Any) -> str:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            return str(caught.value.details())

        answer = await v2.ModelInfer(message(b"a"))
        assert list(answer.outputs[0].contents.bytes_contents) == [b"A!"]
        assert "node up" in await refused(v2.ModelInfer(message(b"refuse")))
        assert (await v2.ModelReady(pb.ModelReadyRequest(name="tour"))).ready
        assert (await v2.ModelMetadata(pb.ModelMetadataRequest(name="tour"))).platform == "graph"
        asked = inference_pb2.PredictionsRequest(model_name="tour", input={"data": b"a"})
        assert (await theirs.Predictions(asked)).prediction == b"A!"
        bad = inference_pb2.PredictionsRequest(model_name="tour", input={"data": b"refuse"})
        assert "node up" in await refused(theirs.Predictions(bad))
        assert (await book.Predict(prediction_pb2.PredictRequest(runId="tour", document="a"))).response == "A!"
        assert SAYS in await refused(book.Predict(prediction_pb2.PredictRequest(runId="tour", document="refuse")))
