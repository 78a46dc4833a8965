"""A graph in a running gateway: its nodes are predictions like any others, and its answer says what each took."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from aiohttp import web

from gateway.fakes import FakePod, hang, running
from marway.graphs.reading import TENSOR_FRAMEWORK
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto.open_inference_pb2_grpc import GRPCInferenceServiceStub
from marway_http.tensors.v2_to_message import HEADER_LENGTH
from support.graphs import publish_graph
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]


async def told(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Say which model was asked, and with what."""
    model = request.path.split("/")[2]
    answer = json.dumps({"model": model, "given": pod.requests[-1].body.decode()})
    headers = {"content-type": "application/json", OUTCOME: Outcome.ANSWERED}
    return web.Response(body=answer, headers=headers)


async def test_models_are_asked_one_after_the_other(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Each node gets its own version, its input and the request's ids; the last one's answer is passed on."""
    for name in ("clean", "score"):
        publish(registry, tmp_path, name)
    chain = {"kind": "sequence", "nodes": ["first", "second"]}
    first = {"kind": "model", "model": "clean"}
    second = {"kind": "model", "model": "score", "input": "{was: request.text, is: nodes.first.model}"}
    publish_graph(registry, tmp_path, {"nodes": {"all": chain, "first": first, "second": second}, "start": "all"})
    pod = await make_pod(behave=told)
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.predict(
            "/predict/tour", b'{"text": "Hi"}', content_type="application/json", x_request_id="r1", x_mine="yes"
        )
        counted = await gateway.metric(
            'marway_gateway_graph_node_duration_seconds_count{model="tour",node="second",outcome="ok",version="1.0"}'
        )
        asked = await gateway.metric(
            'marway_gateway_request_duration_seconds_count{model="score",outcome="ok",surface="graph",version="1.0"}'
        )
    assert answer.json() == {"model": "score", "given": '{"was":"Hi","is":"clean"}'}
    assert (answer.headers["x-model-name"], answer.headers["content-type"]) == ("tour", "application/json")
    assert 'desc="clean 1.0"' in answer.headers["server-timing"]
    assert "node-second;dur=" in answer.headers["server-timing"]
    assert "x-marway-graph" not in answer.headers
    assert (counted, asked) == (1, 1)
    assert [each.headers["x-request-id"] for each in pod.requests] == ["r1", "r1"]
    assert [each.headers["x-mine"] for each in pod.requests] == ["yes", "yes"]
    assert pod.requests[0].body == b'{"text": "Hi"}'


async def test_what_fails_is_said(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """A node that need not answer in a header; one that must in the problem, a late one too, and its pod is let go."""
    publish(registry, tmp_path, "score")
    both = {"kind": "parallel", "nodes": ["a", "b"]}
    nodes = {"all": both, "a": {"kind": "model", "model": "score"}}
    nodes["b"] = {"kind": "model", "model": "score", "input": "request.text", "required": False}
    publish_graph(registry, tmp_path, {"nodes": nodes, "start": "all"}, "lenient")
    nodes["b"] = {"kind": "model", "model": "score", "input": "request.text"}
    publish_graph(registry, tmp_path, {"nodes": nodes, "start": "all"}, "strict")
    pod = await make_pod(behave=told)
    async with running(pod, registry=registry) as gateway:
        lenient = await gateway.predict("/predict/lenient", b"x", content_type="text/plain")
        strict = await gateway.predict("/predict/strict", b"x", content_type="text/plain")
        rows = await gateway.predict("/v1/models/strict:predict", b'{"instances": ["x"]}')
        pod.behave, before = hang, pod.cancelled
        late = await gateway.predict("/predict/lenient", b"x", content_type="text/plain", x_request_timeout_ms="150")
        await until(lambda: pod.cancelled > before)
    assert lenient.json() == {"a": {"model": "score", "given": "x"}, "b": None}
    assert lenient.headers["x-marway-graph"] == "b=failed"
    assert (strict.status_code, strict.json()["code"], strict.json()["node"]) == (400, "invalid_request", "b")
    assert strict.json()["detail"].startswith("node b (score/PROD): its expression `request.text` selects nothing")
    assert "node-b;dur=" in strict.headers["server-timing"]
    assert rows.status_code == 400
    assert "node b (score/PROD): its expression `request.text` selects nothing" in rows.text
    assert (late.status_code, late.json()["node"]) == (504, "a")
    assert "deadline of 0.15 s passed: node a had not answered" in late.json()["detail"]


async def test_tensors_over_v2(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """A graph that takes tensors gets the request whole, over REST and gRPC, and answers under its own name."""

    async def serve(pod: FakePod, request: web.Request) -> web.StreamResponse:
        seen = pod.requests[-1]
        text, data = seen.body[: int(seen.headers[HEADER_LENGTH])], seen.body[int(seen.headers[HEADER_LENGTH]) :]
        (given,) = json.loads(text)["inputs"]
        output = {**given, "name": f"{given['name']}2", "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"model_name": "x", "model_version": "9", "outputs": [output]}).encode()
        headers = {"content-type": "application/octet-stream", OUTCOME: Outcome.ANSWERED, HEADER_LENGTH: str(len(head))}
        return web.Response(body=head + data, headers=headers)

    for name in ("one", "two"):
        publish(registry, tmp_path, name, backend="open-inference")
    nodes = {"all": {"kind": "sequence", "nodes": ["a", "b"]}, "a": {"kind": "model", "model": "one"}}
    nodes["b"] = {"kind": "model", "model": "two", "tensors": {"x2": "y"}}
    document = {"nodes": nodes, "start": "all", "protocol": "open-inference"}
    publish_graph(registry, tmp_path, document, framework=TENSOR_FRAMEWORK)
    pod = await make_pod(behave=serve, backend="open-inference")
    asked = pb.ModelInferRequest(model_name="tour", raw_input_contents=[b"\x01\xff"])
    asked.inputs.add(name="x", datatype="UINT8", shape=[1, 2])
    async with running(pod, registry=registry) as gateway:
        channel = grpc.aio.insecure_channel(gateway.addresses.grpc)
        answer = await GRPCInferenceServiceStub(channel).ModelInfer(asked)  # type: ignore[no-untyped-call]
        await channel.close()
        head = {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 1], "parameters": {"binary_data_size": 1}}]}
        text = json.dumps(head).encode()
        said = {"inference_header_content_length": str(len(text))}
        over_rest = await gateway.predict("/v2/models/tour/infer", text + b"\xfe", **said)
    assert (answer.model_name, answer.model_version) == ("tour", "1.0")
    assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [("y2", "UINT8", [1, 2])]
    assert list(answer.raw_output_contents) == [b"\x01\xff"]
    length = int(over_rest.headers[HEADER_LENGTH])
    assert json.loads(over_rest.content[:length])["model_name"] == "tour"
    assert over_rest.content[length:] == b"\xfe"
    assert "node-b;dur=" in over_rest.headers["server-timing"]
