"""The v1 protocol over REST, through a gateway whose pod's handler gives back what it gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.fakes import FakePod, Running, running
from gateway.handlers import answered, echo, handling, ready, value_of
from marway.objects import DirectoryStore
from marway.records import Signature, TensorSpec
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway.wire.headers import UNEXPLAINED
from support.registry import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN: list[Row] = []
ONE = Signature(inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 2)),))
TEXTS = Signature(
    inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)),),
    outputs=(TensorSpec(name="said", datatype="BYTES", shape=(-1,)),),
)
TWO = Signature(
    inputs=tuple(TensorSpec(name=name, datatype="FP32", shape=(-1,)) for name in ("a", "b")),
    outputs=tuple(TensorSpec(name=name, datatype="FP32", shape=(-1,)) for name in ("a", "b")),
)


def handler(row: Row) -> Answer:
    """Refuse, and answer with what JSON has not, on request; else give back what came."""
    value = value_of(row.parts[0]) if row.is_raw else None
    if value == "refuse":
        return Answer(422, b"ValueError: refuse", "error")
    if value == "said":
        return answered({"said": "label"})
    if isinstance(value, dict) and "answer" in value:
        return answered(value["answer"])
    if value == "predicts":
        return Answer(200, b"1", "json", None, {UNEXPLAINED: "1"})
    if value == "nan":
        return Answer(200, b"[NaN]", "json")
    return answered(b"\x00\xff") if value == "bytes" else echo(row)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod() -> AsyncIterator[FakePod]:
    """The gateway's one pod."""
    made = FakePod("a", behave=handling(handler, seen=SEEN))
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, pod: FakePod) -> AsyncIterator[Running]:
    """A gateway over one pod and three models: `free` has no signature, `one` one input, `two` two of each."""
    scratch = tmp_path_factory.mktemp("v1")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish(registry, scratch, "free", model_id="run-7")
    publish(registry, scratch, "free", "1.1", label="STG")
    publish(registry, scratch, "one", signature=ONE)
    publish(registry, scratch, "two", signature=TWO)
    publish(registry, scratch, "texts", signature=TEXTS)
    async with running(pod, registry=registry, max_body_bytes=100_000) as served:
        await ready(served)
        yield served


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


async def predict(gateway: Running, document: Any, path: str = "free", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.client.post(f"/v1/models/{path}:predict", content=json.dumps(document), headers=sent)


@pytest.mark.parametrize("path", ["free", "free/versions/1.0", "free/versions/STG", "free/labels/STG", "run-7"])
async def test_every_reference(gateway: Running, path: str) -> None:
    """A name, a version, a label and an id all lead to the version."""
    said = await predict(gateway, {"instances": [1]}, path)
    assert said.status_code == 200, said.text
    assert said.json() == {"predictions": [1]}
    assert said.headers["x-model-version"] == ("1.1" if "STG" in path else "1.0")


async def test_an_instance_is_a_request_of_its_own(gateway: Running) -> None:
    """Strings are text, `b64` bytes, and anything else JSON; answers come back in their order."""
    instances = ["für", {"b64": "AP8="}, [{"b64": "AP8="}], [[1, 2], [3, 4]], {"text": "a"}, 1.5, True, None]
    said = await predict(gateway, {"instances": instances, "signature_name": "serving_default"})
    assert said.status_code == 200, said.text
    assert [value_of(row.parts[0]) for row in SEEN] == ["für", b"\x00\xff", b"\x00\xff", *instances[3:]]
    assert all(row.is_raw for row in SEEN)
    assert said.json()["predictions"] == ["für", {"b64": "AP8="}, {"b64": "AP8="}, *instances[3:]]


@pytest.mark.parametrize("path", ["free", "free/versions/1.0", "free/labels/PROD"])
async def test_explanations(gateway: Running, pod: FakePod, path: str) -> None:
    """`:explain` asks the handler to explain each row, and answers as KServe does."""
    said = await gateway.client.post(f"/v1/models/{path}:explain", content=json.dumps({"instances": [1, {"a": 2}]}))
    assert (said.status_code, said.json()) == (200, {"explanations": [1, {"a": 2}]})
    assert pod.requests[-1].headers["x-marway-explain"] == "1"
    await predict(gateway, {"instances": [1]}, x_customer_key="blue")
    assert "x-marway-explain" not in pod.requests[-1].headers
    assert pod.requests[-1].headers["x-customer-key"] == "blue"


async def test_a_prediction_is_no_explanation(gateway: Running) -> None:
    """Where the worker says that the handler never looked whether it is to explain, its answer is not passed off so."""
    said = await gateway.client.post("/v1/models/free:explain", content=json.dumps({"instances": [1, "predicts"]}))
    assert said.status_code == 501
    assert said.json()["error"].startswith("the model has no explanations")


async def test_named_inputs(gateway: Running) -> None:
    """The one input of a signature is the row itself; several, and objects that hold bytes, are named parts."""
    await predict(gateway, {"instances": [{"image": [1, 2]}]}, "one")
    await predict(gateway, {"instances": [{"b": 2, "a": 1}]}, "two")
    await predict(gateway, {"instances": [{"image": {"b64": "AP8="}, "top": 3, "text": "x"}]})
    assert [{part.name: value_of(part) for part in row.parts} for row in SEEN] == [
        {"data": [1, 2]},
        {"b": 2, "a": 1},
        {"image": b"\x00\xff", "top": 3, "text": "x"},
    ]


async def test_columns(gateway: Running) -> None:
    """Columns are the same rows, and are answered in columns where the handler gives the signature's outputs."""
    named = await predict(gateway, {"inputs": {"a": [1, 2], "b": [3, 4]}}, "two")
    assert named.json() == {"outputs": {"a": [1, 2], "b": [3, 4]}}
    alone = await predict(gateway, {"inputs": {"image": [[1, 2], [3, 4]]}}, "one")
    assert alone.json() == {"outputs": [[1, 2], [3, 4]]}
    bare = await predict(gateway, {"inputs": ["x", "y"]})
    assert bare.json() == {"outputs": ["x", "y"]}
    assert [{part.name: value_of(part) for part in row.parts} for row in SEEN] == [
        {"a": 1, "b": 3},
        {"a": 2, "b": 4},
        {"data": [1, 2]},
        {"data": [3, 4]},
        {"data": "x"},
        {"data": "y"},
    ]


async def test_values_without_lists_are_one_row(gateway: Running) -> None:
    """The column format takes a value as it is, alone or by name, and answers in the same form."""
    assert (await predict(gateway, {"inputs": "x"})).json() == {"outputs": "x"}
    assert (await predict(gateway, {"inputs": {"b64": "AP8="}})).json() == {"outputs": {"b64": "AP8="}}
    assert (await predict(gateway, {"inputs": {"a": 1, "b": 2}}, "two")).json() == {"outputs": {"a": 1, "b": 2}}
    assert (await predict(gateway, {"inputs": {"text": "x"}}, "texts")).json() == {"outputs": "x"}


async def test_the_name_of_the_one_output_is_left_out(gateway: Running) -> None:
    """That holds for rows and for columns; several outputs are objects by row, or columns by name."""
    rows = [{"text": "said"}, "said"]
    assert (await predict(gateway, {"instances": rows}, "texts")).json() == {"predictions": ["label", "label"]}
    assert (await predict(gateway, {"inputs": ["said"]}, "texts")).json() == {"outputs": ["label"]}
    several = await predict(gateway, {"instances": [{"a": 1, "b": 2}]}, "two")
    assert several.json() == {"predictions": [{"a": 1, "b": 2}]}


async def test_no_signature_name_is_the_one_that_there_is(gateway: Running) -> None:
    """Clients write null, nothing, or TensorFlow's usual name."""
    for name in (None, "", "serving_default"):
        assert (await predict(gateway, {"instances": [1], "signature_name": name})).json() == {"predictions": [1]}


async def test_what_a_signature_lets_through(gateway: Running) -> None:
    """Numbers of its type, a trailing 1, numbers that are not finite, and bytes for the handler to decode."""
    for value in ([1, 2.5], [[1], [2]], {"b64": "AP8="}, [{"b64": "AP8="}], [float("nan"), 1]):
        said = await predict(gateway, {"instances": [value]}, "one")
        assert said.status_code == 200, said.text


async def test_classify(gateway: Running) -> None:
    """Each example is a row with the context's features, and its answer pairs of label and score."""
    pairs = [["a", 0.25], ["b", 0.75]]
    for answer in (
        pairs,
        [{"label": "a", "score": 0.25}, {"class": "b", "probability": 0.75}],
        {"classes": ["a", "b"], "scores": [0.25, 0.75]},
    ):
        document = {"examples": [{"answer": answer}, {"answer": {"label": "c", "score": 1}}], "context": {"x": 1}}
        said = await gateway.client.post("/v1/models/free/versions/1.0:classify", json=document)
        assert said.json() == {"results": [pairs, [["c", 1]]]}
    assert value_of(SEEN[-1].parts[0])["x"] == 1


async def test_regress(gateway: Running) -> None:
    """The answer to each example is a number, alone or as the one value of a list or an object."""
    document = {"examples": [{"answer": each} for each in (1.5, [2], {"score": [3]})]}
    said = await gateway.client.post("/v1/models/free:regress", json=document)
    assert said.json() == {"results": [1.5, 2, 3]}


@pytest.mark.parametrize(
    ("verb", "document", "status", "says"),
    [
        ("classify", {"instances": [1]}, 400, "has no examples"),
        ("classify", {"examples": [1]}, 400, "has no examples"),
        ("classify", {"examples": []}, 400, "has 0 rows"),
        ("classify", {"examples": [{}], "context": 1}, 400, "context is no object"),
        ("classify", {"examples": [{"a": 1}], "context": {"a": 2}}, 400, "which is in the context too"),
        ("classify", {"examples": [{}], "signature_name": "x"}, 400, "no signature 'x'"),
        ("classify", {"examples": [{"answer": 1}]}, 500, "row 0: the handler's answer is no classification"),
        (
            "regress",
            {"examples": [{"answer": 1}, {"answer": "x"}]},
            500,
            "row 1: the handler's answer is no regression",
        ),
    ],
)
async def test_what_is_no_classification(gateway: Running, verb: str, document: Any, status: int, says: str) -> None:
    """Wrong requests are the client's fault, and answers of another form the model's."""
    said = await gateway.client.post(f"/v1/models/free:{verb}", json=document)
    assert said.status_code == status, said.text
    assert says in said.json()["error"]


async def test_metadata(gateway: Running) -> None:
    """A version's signature is told in TensorFlow's words."""
    said = await gateway.client.get("/v1/models/one/metadata")
    tensor = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": False},
        "name": "image:0",
    }
    signature = {"inputs": {"image": tensor}, "outputs": {}, "method_name": "tensorflow/serving/predict"}
    assert said.json() == {
        "model_spec": {"name": "one", "signature_name": "", "version": "1.0"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }
    for path in ("free/versions/1.1", "free/labels/STG"):
        said = await gateway.client.get(f"/v1/models/{path}/metadata")
        assert said.json()["model_spec"]["version"] == "1.1"
    missing = await gateway.client.get("/v1/models/nix/metadata")
    assert (missing.status_code, missing.json().keys()) == (404, {"error"})


async def test_ids_and_telemetry(gateway: Running) -> None:
    """Ids come back with the model, and the request counts under its surface."""
    said = await predict(gateway, {"instances": [1]}, x_request_id="r-1", x_request_group_id="g")
    assert (said.headers["x-request-id"], said.headers["x-request-group-id"]) == ("r-1", "g")
    assert (said.headers["x-model-name"], said.headers["x-model-id"]) == ("free", "run-7")
    assert "pod;dur=" in said.headers["server-timing"]
    labels = 'model="free",outcome="ok",surface="v1",version="1.0"'
    assert await gateway.metric(f"marway_gateway_request_duration_seconds_count{{{labels}}}") >= 1


async def test_a_row_that_fails(gateway: Running) -> None:
    """One row's failure is the request's, and names the row."""
    said = await predict(gateway, {"instances": [1, "refuse"]})
    assert (said.status_code, said.json()) == (422, {"error": "row 1: ValueError: refuse"})


async def test_numbers_that_are_not_finite(gateway: Running) -> None:
    """They go both ways as TensorFlow Serving's REST API writes them."""
    said = await gateway.client.post("/v1/models/free:predict", content=b'{"instances": [NaN, [-Infinity]]}')
    assert (said.status_code, said.text) == (200, '{"predictions": [NaN, [-Infinity]]}')
    said = await predict(gateway, {"instances": [1, "nan"]})
    assert said.text == '{"predictions": [1, [NaN]]}'


async def test_bytes_come_back_as_b64(gateway: Running) -> None:
    """An answer that is neither JSON nor text is base64 in an object."""
    assert (await predict(gateway, {"instances": ["bytes"]})).json() == {"predictions": [{"b64": "AP8="}]}


ROW = {"instances": [1]}
BAD: list[tuple[str, Any, dict[str, str], int, str]] = [
    ("nix", ROW, {}, 404, "there is no model 'nix'"),
    ("free/versions/9", ROW, {}, 404, "no version '9'"),
    ("free/labels/QA", ROW, {}, 404, "no label QA"),
    ("free/labels/1.0", ROW, {}, 400, "cannot be a label"),
    ("in%20tent", ROW, {}, 400, "cannot be a model id"),
    ("free", b"", {}, 400, "no body"),
    ("free", b"{", {}, 400, "no JSON"),
    ("free", b"[]", {}, 400, "no object"),
    ("free", b"x" * 100_001, {}, 413, "at most 100000 bytes"),
    ("free", ROW, {"x-request-timeout-ms": "-1"}, 400, "whole number of milliseconds"),
    ("free", ROW, {"content-encoding": "br"}, 415, "is not taken"),
    ("free", {}, {}, 400, "no rows"),
    ("free", {"instances": [1], "inputs": [1]}, {}, 400, "not both"),
    ("free", {"instances": 1}, {}, 400, "instances is no list"),
    ("free", {"instances": []}, {}, 400, "has 0 rows"),
    ("free", {"instances": [1] * 1025}, {}, 400, "has 1025 rows: send 1 to 1024"),
    ("free", {"instances": [1], "signature_name": "other"}, {}, 400, "no signature 'other'"),
    ("free", {"instances": [1], "signature_name": 7}, {}, 400, "no signature 7"),
    ("free", {"instances": [{"b64": "?"}]}, {}, 400, "instance 0 has a b64 value that is no base64"),
    ("free", b'{"instances": ["\\ud800"]}', {}, 400, "no Unicode text"),
    ("free", {"instances": [{"marway.envelope.v1": 1}]}, {}, 400, "kept for Marway"),
    ("free", {"inputs": {}}, {}, 400, "a list for each input"),
    ("free", {"inputs": {"a": 1, "b": [1]}}, {}, 400, "a list for each input"),
    ("two", {"instances": [{"a": 1}]}, {}, 400, "the request lacks the input 'b': the model takes a, b"),
    ("two", {"instances": [{"a": 1, "b": 2, "c": 3}]}, {}, 400, "no input 'c'"),
    ("two", {"instances": [1]}, {}, 400, "instance 0 is no object: the model takes the inputs a, b"),
    ("two", {"inputs": [1]}, {}, 400, "instance 0 is no object"),
    ("two", {"instances": [{"a": 1, "b": 2}, {"a": 1, "b": "x"}]}, {}, 400, "instance 1: input 'b' is FP32, and \"x\""),
    ("two", {"instances": [{"a": 1, "b": None}]}, {}, 400, "and null is none"),
    ("two", {"instances": [{"a": 1, "b": True}]}, {}, 400, "and true is none"),
    ("one", {"instances": [[1, 2, 3]]}, {}, 400, "has the shape [1, 3]: the model takes [-1, 2]"),
    ("one", {"instances": [[[1, 2]]]}, {}, 400, "has the shape [1, 1, 2]"),
    ("one", {"instances": [1]}, {}, 400, "has the shape [1]"),
    ("one", {"instances": [[1, [2]]]}, {}, 400, "lists of different lengths"),
    ("one", {"instances": [{"picture": [1, 2]}]}, {}, 400, "no input 'picture': it takes image"),
    ("texts", {"instances": [7]}, {}, 400, "input 'text' is BYTES, and 7 is none"),
    ("free", {"inputs": {"a": [1], "b": [1, 2]}}, {}, 400, "all of one length"),
    ("free", {"inputs": {"a": []}}, {}, 400, "has 0 rows"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "says"), BAD)
async def test_bad_input(
    gateway: Running, path: str, body: Any, headers: dict[str, str], status: int, says: str
) -> None:
    """Each wrong reference, body, header and instance is refused in the protocol's form, before a pod is asked."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = await gateway.client.post(f"/v1/models/{path}:predict", content=content, headers=headers)
    assert said.status_code == status, said.text
    assert said.json().keys() == {"error"}
    assert says in said.json()["error"]
    assert SEEN == []


async def test_status(gateway: Running) -> None:
    """A model's status is what KServe asks for (`ready`) and what TensorFlow Serving tells of its versions."""
    fine = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path, versions in (
        ("free", ["1.0", "1.1"]),
        ("run-7", ["1.0"]),
        ("free/versions/1.1", ["1.1"]),
        ("free/labels/STG", ["1.1"]),
    ):
        said = await gateway.client.get(f"/v1/models/{path}")
        assert said.json() == {
            "name": "free",
            "ready": True,
            "model_version_status": [{"version": version, **fine} for version in versions],
        }
    for path, status in (("nix", 404), ("free/versions/9", 404), ("free/labels/x", 400), ("free/labels/QA", 404)):
        said = await gateway.client.get(f"/v1/models/{path}")
        assert (said.status_code, said.json().keys()) == (status, {"error"})
    wrong = await gateway.client.post("/v1/models/free")
    assert (wrong.status_code, wrong.json().keys()) == (405, {"error"})
