"""Open Inference v2 for versions whose server takes tensors itself: as it came to the pod, as it came back."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from aiohttp import web

from gateway.fakes import FakePod, Running, Seen, fail, running
from gateway.handlers import TWO, echo, handling, ready
from marway.errors import InvalidRequest, ModelError
from marway.objects import DirectoryStore
from marway.refs import TENSOR_BACKENDS
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import ROWS_CONTENT_TYPE
from marway.wire.headers import DESCRIBE, OUTCOME, Outcome
from marway_gateway.conversion.converters import INLINE_BYTES
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from marway_http.tensors.datatypes import DATATYPES
from marway_http.tensors.v2_parameters import add_parameters, plain_parameters
from marway_http.tensors.v2_protobuf import CONTENTS
from marway_http.tensors.v2_to_message import header_length_of, message_of_request
from marway_http.tensors.v2_to_rest import error_piece, piece_of_response, rest_of_response
from support.registry import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")

Code = grpc.StatusCode
LENGTH = "inference-header-content-length"
OCTETS = {"content-type": "application/octet-stream"}
SEEN: list[Seen] = []
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
DESCRIBED = {
    "open-inference": {"name": "mv_1", "inputs": [{**TENSOR, "parameters": {}}], "outputs": [TENSOR]},
    "tensorflow-serving": {},
}


async def served(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer as a pod does whose server gives back the tensors that it gets; what a parameter asks for, it does."""
    seen = pod.requests[-1]
    SEEN.append(seen)
    _, _, name, version = seen.path.split("/")
    if seen.headers.get(DESCRIBE) == "1":
        return web.json_response(DESCRIBED[name], headers={OUTCOME: Outcome.ANSWERED})
    if seen.headers["content-type"] == ROWS_CONTENT_TYPE:
        return await handling(echo)(pod, request)
    length = header_length_of(seen.headers.get(LENGTH), seen.body)
    try:
        sent, forms = message_of_request(seen.body, length, name="mv_1")
    except InvalidRequest as exc:
        return web.json_response({"error": exc.message}, status=400, headers={OUTCOME: Outcome.ANSWERED})
    message = pb.ModelInferRequest.FromString(sent)
    asked = plain_parameters(message.parameters)
    if "fail" in asked:
        said = json.dumps({"error": "the server says no"})
        return web.Response(text=said, status=asked["fail"], headers={OUTCOME: Outcome.ANSWERED})
    if "break" in asked:
        return await fail(ModelError("it broke", status=500), Outcome.MODEL_ERROR)(pod, request)
    response = pb.ModelInferResponse(model_name="mv_1", model_version="1", id=message.id)
    add_parameters(response.parameters, {name: value for name, value in asked.items() if name != "pieces"})
    for tensor in message.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    response.raw_output_contents.extend(message.raw_input_contents)
    data = response.SerializeToString()
    if "pieces" in asked:
        answer = web.StreamResponse(headers={OUTCOME: Outcome.ANSWERED, "content-type": "application/octet-stream"})
        await answer.prepare(request)
        for _ in range(asked["pieces"]):
            await answer.write(piece_of_response(data, forms, name=name, version=version))
        if "late" in asked:
            await answer.write(error_piece("too many"))
            await answer.write(piece_of_response(data, forms, name=name, version=version))
        return answer
    made = rest_of_response(data, forms, name=name, version=version)
    headers = {OUTCOME: Outcome.ANSWERED}
    if made.header_length is not None:
        headers[LENGTH] = str(made.header_length)
    return web.Response(body=made.body, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway over a pod of a server that takes tensors, and one of handlers."""
    scratch = tmp_path_factory.mktemp("passing")
    registry = Registry(DirectoryStore(scratch / "registry"))
    for backend in TENSOR_BACKENDS:
        publish(registry, scratch, backend, backend=backend)
    publish(registry, scratch, "decoupled", backend="open-inference", serving=ServingSettings(streaming=True))
    publish(registry, scratch, "signed", backend="open-inference", signature=TWO)
    publish(registry, scratch, "handler")
    pods = [FakePod(kind, behave=served, backend=kind) for kind in (*TENSOR_BACKENDS, "torchserve")]
    for pod in pods:
        await pod.start()
    async with running(*pods, registry=registry) as gateway:
        await ready(gateway)
        yield gateway
    for pod in pods:
        await pod.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(gateway: Running) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


async def post(
    gateway: Running, body: Any, *, model: str = "open-inference", verb: str = "infer", **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.client.post(f"/v2/models/{model}/{verb}", content=content, headers=sent)


def request(
    datatype: str = "FP32", *values: Any, model: str = "open-inference", raw: bool = True, **parameters: Any
) -> pb.ModelInferRequest:
    """Return a request of one tensor `x`."""
    values = values or (1, 2)
    message = pb.ModelInferRequest(model_name=model, id="mine")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    if raw:
        message.raw_input_contents.append(DATATYPES[datatype].pack(values))
    else:
        getattr(tensor.contents, CONTENTS[datatype]).extend(values)
    add_parameters(message.parameters, parameters)
    return message


@pytest.mark.parametrize("model", sorted(TENSOR_BACKENDS))
async def test_rest_json_as_it_came(gateway: Running, model: str) -> None:
    """The pod gets the caller's own bytes in one row, with every parameter, and its answer is the caller's."""
    asked = {
        "id": "mine",
        "parameters": {"sequence_id": 3, "sequence_start": True, "priority": 2, "anything": "x", "timeout": 5},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 0.5]]}],
    }
    body = json.dumps(asked, indent=1).encode()
    said = await post(gateway, body, model=model, content_type="application/x-www-form-urlencoded", x_own="1")
    assert said.status_code == 200, said.text
    assert said.json() == {
        "model_name": model,
        "model_version": "1.0",
        "id": "mine",
        "parameters": asked["parameters"],
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 0.5]}],
    }
    assert said.headers["x-model-version"] == "1.0"
    (seen,) = SEEN
    assert seen.body == body
    assert (seen.headers["content-type"], seen.headers["x-own"]) == ("application/json", "1")
    assert seen.headers[LENGTH] == str(len(body))


async def test_rest_binary_as_it_came(gateway: Running) -> None:
    """JSON with binary tensors goes and comes back with its header's length, also where it is too large for frames."""
    data = bytes(range(256)) * 4096
    tensor = {
        "name": "x",
        "datatype": "UINT8",
        "shape": [len(data)],
        "parameters": {"binary_data_size": len(data)},
    }
    text = json.dumps({"inputs": [tensor], "outputs": [{"name": "x", "parameters": {"binary_data": True}}]}).encode()
    said = await post(gateway, text + data, inference_header_content_length=str(len(text)))
    assert said.status_code == 200, said.text
    length = int(said.headers[LENGTH])
    assert json.loads(said.content[:length])["outputs"] == [tensor]
    assert said.content[length:] == data
    assert SEEN[0].body == text + data
    assert SEEN[0].headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
async def test_every_datatype_over_grpc(stub: Any, datatype: str) -> None:
    """Raw contents, of every datatype, reach the server as they are and come back raw."""
    values = (b"a", b"\xff\0") if datatype == "BYTES" else (1, 0)
    sent = request(datatype, *values, sequence_id=7)
    said = await stub.ModelInfer(sent)
    assert (said.model_name, said.model_version, said.id) == ("open-inference", "1.0", "mine")
    assert list(said.raw_output_contents) == list(sent.raw_input_contents)
    assert [(each.name, each.datatype, list(each.shape)) for each in said.outputs] == [("x", datatype, [2])]
    assert plain_parameters(said.parameters) == {"sequence_id": 7}
    (seen,) = SEEN
    assert seen.body.endswith(sent.raw_input_contents[0])
    assert "x-marway-rows" not in seen.headers["content-type"]


@pytest.mark.parametrize("datatype", sorted(CONTENTS))
@pytest.mark.parametrize("count", [1, INLINE_BYTES])
async def test_typed_contents(stub: Any, datatype: str, count: int) -> None:
    """Typed contents are answered with typed ones, small or large; with raw ones where that is asked for."""
    values = (b"a", b"\xff\0") if datatype == "BYTES" else (1, 0)
    said = await stub.ModelInfer(request(datatype, *values * count, raw=False))
    assert list(getattr(said.outputs[0].contents, CONTENTS[datatype])) == list(values) * count
    assert not said.raw_output_contents
    if count == 1:
        said = await stub.ModelInfer(request(datatype, *values, raw=False, binary_data_output=True))
        assert list(said.raw_output_contents) == [DATATYPES[datatype].pack(values)]


async def test_large_raw_contents(stub: Any) -> None:
    """Megabytes of raw contents go through as they are."""
    sent = request("UINT8", *bytes(1_000_000))
    assert (await stub.ModelInfer(sent)).raw_output_contents == sent.raw_input_contents


async def failing(asked: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked
    return caught.value


async def test_the_servers_errors(gateway: Running, stub: Any) -> None:
    """The server's own status and words come back: its body over REST, its code and message over gRPC."""
    said = await post(gateway, {"inputs": [], "parameters": {"fail": 400}})
    assert (said.status_code, said.json()) == (400, {"error": "the server says no"})
    for status, code in ((400, Code.INVALID_ARGUMENT), (404, Code.NOT_FOUND), (500, Code.INTERNAL)):
        error = await failing(stub.ModelInfer(request(fail=status)))
        assert (error.code(), error.details()) == (code, "the server says no")
    said = await post(gateway, {"inputs": [], "parameters": {"break": 1}})
    assert (said.status_code, said.json()) == (500, {"error": "it broke"})
    error = await failing(stub.ModelInfer(request(**{"break": 1})))
    assert (error.code(), error.details()) == (Code.INTERNAL, "it broke")
    labels = 'model="open-inference",outcome="model_error",surface="open_inference_grpc",version="1.0"'
    assert await gateway.metric(f"marway_gateway_request_duration_seconds_count{{{labels}}}") == 4


@pytest.mark.parametrize("name", ["shared_memory_region", "shared\\u005fmemory_region"])
async def test_shared_memory_is_refused(gateway: Running, stub: Any, name: str) -> None:
    """Nobody who asks from outside has the server's shared memory read or written, however JSON spells it."""
    for kind in ("inputs", "outputs"):
        body = f'{{"inputs": [], "{kind}": [{{"name": "x", "parameters": {{"{name}": "r"}}}}]}}'.encode()
        said = await post(gateway, body)
        assert said.status_code == 400
        assert said.json()["error"].startswith(f"{kind[:-1]} 0 has the parameter shared_memory_region")
    sent = request()
    add_parameters(sent.inputs[0].parameters, {"shared_memory_region": "r"})
    error = await failing(stub.ModelInfer(sent))
    assert (error.code(), "shared_memory_region" in (error.details() or "")) == (Code.INVALID_ARGUMENT, True)
    assert SEEN == []
    said = await post(gateway, {"inputs": [], "id": "shared_memory_region \u00e9"})
    assert said.json()["id"] == "shared_memory_region \u00e9"


@pytest.mark.parametrize(
    ("body", "headers", "seen", "says"),
    [
        (b"{}x", {LENGTH: "4"}, 0, "Inference-Header-Content-Length is '4'"),
        (b"{}x", {LENGTH: "-1"}, 0, "Inference-Header-Content-Length"),
        (b"", {}, 0, "no body"),
        (b"{", {}, 1, "no JSON"),
    ],
)
async def test_bodies_that_cannot_be(
    gateway: Running, body: bytes, headers: dict[str, str], seen: int, says: str
) -> None:
    """A header length that the body has not is refused; what is no JSON is the server's to refuse."""
    said = await gateway.client.post("/v2/models/open-inference/infer", content=body, headers=headers)
    assert (said.status_code, len(SEEN)) == (400, seen)
    assert says in said.json()["error"]


async def test_explanations_are_refused(gateway: Running) -> None:
    """A server of tensors has no explanations, and does not predict in their place."""
    said = await post(gateway, {"inputs": []}, verb="explain")
    assert (said.status_code, "has no explanations" in said.json()["error"]) == (501, True)
    assert SEEN == []


async def test_metadata(gateway: Running, stub: Any) -> None:
    """What a version takes is its signature's to say, else its server's; over REST and gRPC."""
    said = (await gateway.client.get("/v2/models/open-inference")).json()
    assert said == {
        "name": "open-inference",
        "versions": ["1.0"],
        "platform": "open-inference",
        "inputs": [TENSOR],
        "outputs": [TENSOR],
    }
    told = await stub.ModelMetadata(pb.ModelMetadataRequest(name="open-inference"))
    assert [(each.name, each.datatype, list(each.shape)) for each in told.outputs] == [("x", "FP32", [-1, 2])]
    asked = len(SEEN)
    said = (await gateway.client.get("/v2/models/signed")).json()
    assert [each["name"] for each in said["inputs"]] == ["text", "top"]
    assert len(SEEN) == asked
    said = await gateway.client.get("/v2/models/tensorflow-serving")
    assert (said.status_code, "publish it with a signature" in said.json()["error"]) == (500, True)


async def test_rows_of_other_surfaces(gateway: Running) -> None:
    """v1 sends rows to such a version as to any other: the pod makes tensors of them."""
    said = await gateway.client.post("/v1/models/open-inference:predict", json={"instances": [1, 2]})
    assert said.json() == {"predictions": [1, 2]}
    assert SEEN[0].headers["content-type"] == ROWS_CONTENT_TYPE


async def test_a_stream_over_rest(gateway: Running) -> None:
    """A version that streams answers with a line of JSON for each of its responses."""
    asked = {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [1]}], "parameters": {"pieces": 2}}
    said = await post(gateway, asked, model="decoupled")
    assert [json.loads(line)["outputs"][0]["data"] for line in said.text.splitlines()] == [[1], [1]]


async def infer_stream(stub: Any, *sent: pb.ModelInferRequest | bytes) -> list[pb.ModelStreamInferResponse]:
    return [each async for each in stub.ModelStreamInfer(iter(sent), timeout=30)]


def final(responses: Sequence[pb.ModelStreamInferResponse]) -> list[bool]:
    named = (plain_parameters(each.infer_response.parameters) for each in responses)
    return [bool(each.get("triton_final_response")) for each in named]


def shown(responses: Sequence[pb.ModelStreamInferResponse]) -> list[tuple[str, str, list[bytes]]]:
    return sorted(
        (each.infer_response.id, each.error_message, list(each.infer_response.raw_output_contents))
        for each in responses
    )


async def test_a_stream_over_grpc(gateway: Running, stub: Any) -> None:
    """Each request of `ModelStreamInfer` is answered under its id, by its model or with an error."""
    asked = {
        "pieces": request("INT8", 1, model="decoupled", pieces=3),
        "once": request("INT8", 2),
        "handler": request("FP32", 4, model="handler"),
        "failed": request("INT8", 3, fail=400),
        "nobody": request("INT8", 3, model="nobody"),
    }
    for name, message in asked.items():
        message.id = name
    responses = await infer_stream(stub, *asked.values())
    assert sum(final(responses)) == 4, "each but that with pieces, whose server says it"
    said = shown(responses)
    assert said[:2] == [
        ("failed", "the server says no", []),
        ("handler", "", [struct.pack("<f", 4)]),
    ]
    assert said[2][:2] == ("nobody", said[2][1])
    assert said[2][1].startswith("there is no model 'nobody'")
    assert said[3:] == [("once", "", [b"\2"]), *[("pieces", "", [b"\1"])] * 3]
    labels = 'model="decoupled",outcome="ok",surface="open_inference_grpc",version="1.0"'
    assert await gateway.metric(f"marway_gateway_request_duration_seconds_count{{{labels}}}") == 1


async def test_an_error_behind_other_responses(gateway: Running, stub: Any) -> None:
    """It has the server's words, over gRPC as an error and over REST as a line."""
    sent = request("INT8", 1, model="decoupled", pieces=2, late=1)
    assert shown(await infer_stream(stub, sent)) == [("mine", "", [b"\1"])] * 3 + [("mine", "too many", [])]
    said = await post(gateway, {"inputs": [], "parameters": {"pieces": 1, "late": 1}}, model="decoupled")
    assert json.loads(said.text.splitlines()[1]) == {"error": "too many"}


async def test_typed_pieces(stub: Any) -> None:
    """Pieces come back in the form of the inputs too."""
    said = await infer_stream(stub, request("INT64", 5, model="decoupled", raw=False, pieces=1))
    assert list(said[0].infer_response.outputs[0].contents.int64_contents) == [5]


async def test_sequences_in_their_order(stub: Any) -> None:
    """Requests of one sequence reach the server in the order in which they were sent."""
    sent = [request("INT32", number, sequence_id=1 + number % 2) for number in range(40)]
    assert len(await infer_stream(stub, *sent)) == 40
    values = [struct.unpack("<i", seen.body[-4:])[0] for seen in SEEN]
    for first in (0, 1):
        assert [value for value in values if value % 2 == first] == list(range(first, 40, 2))


async def test_several_responses_to_one_request(stub: Any) -> None:
    """`ModelInfer` gives one response; a version that has several to give is asked with `ModelStreamInfer`."""
    assert (await stub.ModelInfer(request("INT8", 1, model="decoupled", pieces=1))).raw_output_contents == [b"\1"]
    error = await failing(stub.ModelInfer(request("INT8", 1, model="decoupled", pieces=2)))
    assert (error.code(), "call ModelStreamInfer" in (error.details() or "")) == (Code.UNIMPLEMENTED, True)


async def test_a_message_that_is_none_ends_the_stream(gateway: Running) -> None:
    """Requests before what is no message are answered; then the call ends."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        method = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        call = method(iter([request().SerializeToString(), b"\xff"]), timeout=30)
        assert pb.ModelStreamInferResponse.FromString(await call.read()).infer_response.id == "mine"
        assert (await failing(call.read())).code() == Code.INVALID_ARGUMENT


async def test_many_requests_of_one_stream(stub: Any) -> None:
    """More requests than are worked on at once are all answered."""
    said = await infer_stream(stub, *(request("INT32", number) for number in range(200)))
    assert sorted(struct.unpack("<i", each.infer_response.raw_output_contents[0])[0] for each in said) == [*range(200)]
