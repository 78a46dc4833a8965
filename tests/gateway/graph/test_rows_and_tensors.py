"""Requests of many rows, each of which a graph takes by itself; and tensors, whose bytes go from node to node as is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marway.errors import InvalidRequest, ModelError
from marway.records import Signature, TensorSpec
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, decode_answers, encode_rows
from marway_gateway.predict.call import PredictCall
from marway_http.tensors.v2_to_message import HEADER_LENGTH
from support.graph_models import Models, Said, reply, rows_answered

CHAIN = {"kind": "sequence", "nodes": ["a", "b"]}
OCTETS = "application/octet-stream"


def row(value: bytes, content_type: str = "application/json") -> Row:
    return Row("", [Part("data", value, content_type)], {"content-type": content_type})


async def test_each_row_runs_by_itself() -> None:
    """The first node is given the row as a row, later ones what was answered; the answers come in the rows' order."""

    async def first(call: PredictCall) -> Said:
        def answer(each: Row) -> Answer:
            return Answer(200, b'{"n": %b}' % bytes(each.parts[0].value), "json", "application/json")

        return rows_answered(call, answer)

    async def second(call: PredictCall) -> Said:
        return call.body.whole or b""

    nodes = {"top": CHAIN, "a": {"kind": "model", "model": "first"}}
    nodes["b"] = {"kind": "model", "model": "second", "input": "{was: request, is: nodes.a.n}"}
    models = Models({"g": {"nodes": nodes, "start": "top"}}, first=first, second=second)
    envelope = encode_rows([row(b"%d" % number) for number in range(20)])
    answer = await models.ask("g", envelope, ROWS_CONTENT_TYPE)
    assert answer.headers == [(b"content-type", ROWS_CONTENT_TYPE.encode())]
    answers = decode_answers(answer.data or b"")
    assert [json.loads(each.body) for each in answers] == [{"was": number, "is": number} for number in range(20)]
    assert {each.kind for each in answers} == {"json"}
    fields = Row("", [Part("x", b"1", "application/json"), Part("y", b"up", "text/plain")], {})
    nodes["a"] = {"kind": "model", "model": "second", "input": "request"}
    models = Models({"g": {"nodes": nodes, "start": "a"} | {"nodes": {"a": nodes["a"]}}}, second=second)
    (one,) = decode_answers((await models.ask("g", encode_rows([fields]), ROWS_CONTENT_TYPE)).data or b"")
    assert json.loads(one.body) == {"x": 1, "y": "up"}


async def test_a_row_that_fails() -> None:
    """The error says which row and which node; nothing runs on."""

    async def picky(call: PredictCall) -> Said:
        def answer(each: Row) -> Answer:
            good = bytes(each.parts[0].value) != b"2"
            return Answer(200, b"1", "json") if good else Answer(422, b"not a 2", "error")

        return rows_answered(call, answer)

    models = Models({"g": {"nodes": {"a": {"kind": "model", "model": "picky"}}, "start": "a"}}, picky=picky)
    envelope = encode_rows([row(b"%d" % number) for number in range(4)])
    with pytest.raises(ModelError, match=r"^row 2: node a \(picky 1\.0\): not a 2$") as caught:
        await models.ask("g", envelope, ROWS_CONTENT_TYPE)
    assert (caught.value.status, caught.value.node, models.running) == (422, "a", 0)


def message(kind: str, tensors: dict[str, Any], data: bytes | None = None, **more: Any) -> tuple[bytes, int | None]:
    """Return a message with tensors as JSON, or with their bytes behind it."""
    described = []
    for name, value in tensors.items():
        each: dict[str, Any] = {"name": name, "datatype": "UINT8", "shape": [1, 4]}
        described.append(each | ({"parameters": {"binary_data_size": 4}} if data is not None else {"data": value}))
    text = json.dumps({kind: described, **more}).encode()
    return (text, None) if data is None else (text + data, len(text))


def tensor_graph(**more: Any) -> dict[str, Any]:
    nodes = {"top": CHAIN, "a": {"kind": "model", "model": "features"}}
    nodes["b"] = {"kind": "model", "model": "score", "tensors": {"vector": "x", "mask": "m"}}
    return {"nodes": nodes, "start": "top", "protocol": "open-inference", **more}


async def test_binary_tensors_go_on_as_they_are() -> None:
    """Outputs of one become inputs of the next, by name; the answer bears the graph's name, as the caller wants it."""

    async def features(call: PredictCall) -> Said:
        body, length = message("outputs", {"mask": 0, "other": 0, "vector": 0}, b"MMMMoooo\xff\x00vv", model_name="f")
        return reply(body, OCTETS, inference_header_content_length=str(length))

    async def score(call: PredictCall) -> Said:
        length = int(call.headers[HEADER_LENGTH])
        asked, data = json.loads((call.body.whole or b"")[:length]), (call.body.whole or b"")[length:]
        assert [each["name"] for each in asked["inputs"]] == ["x", "m"]
        assert data == b"\xff\x00vvMMMM"
        assert asked["outputs"] == [{"name": "probability"}]
        assert asked["parameters"] == {"temperature": 2}
        return reply(b'{"model_name": "score", "model_version": "7", "outputs": []}')

    backends = {"features": "open-inference", "score": "open-inference"}
    models = Models({"g": tensor_graph()}, backends=backends, features=features, score=score)
    body, length = message(
        "inputs", {"raw": 0}, b"rrrr", outputs=[{"name": "probability"}], parameters={"temperature": 2}
    )
    answer = await models.ask("g", body, OCTETS, inference_header_content_length=str(length))
    assert json.loads(answer.data or b"") == {"model_name": "g", "model_version": "1.0", "outputs": []}
    first = models.calls[0]
    asked = json.loads((first.body.whole or b"")[: int(first.headers[HEADER_LENGTH])])
    assert "outputs" not in asked  # they are the graph's, not the first model's
    assert asked["parameters"] == {"temperature": 2, "binary_data_output": True}
    assert (first.body.whole or b"").endswith(b"rrrr")


async def test_a_handler_is_asked_in_rows() -> None:
    """A model that takes no tensors gets rows, as it would from the protocol's surface, and answers tensors."""

    async def features(call: PredictCall) -> Said:
        assert call.headers["content-type"] == ROWS_CONTENT_TYPE
        return rows_answered(call, lambda each: Answer(200, b'{"vector": [1, 2], "mask": [0, 1]}', "json"))

    async def score(call: PredictCall) -> Said:
        asked = json.loads(call.body.whole or b"")
        assert [(each["name"], each["data"]) for each in asked["inputs"]] == [("x", [1, 2]), ("m", [0, 1])]
        return reply(b'{"outputs": [{"name": "p", "datatype": "FP32", "shape": [1], "data": [0.5]}]}')

    outputs = tuple(TensorSpec(name=name, datatype="INT64", shape=(-1, 2)) for name in ("vector", "mask"))
    models = Models({"g": tensor_graph()}, backends={"score": "open-inference"}, features=features, score=score)
    models.signatures["features"] = Signature(outputs=outputs)
    body, _ = message("inputs", {"raw": [[1, 2, 3, 4]]})
    answer = await models.ask("g", body)
    assert json.loads(answer.data or b"")["outputs"][0]["data"] == [0.5]
    with pytest.raises(InvalidRequest, match=r"node a \(features 1\.0\): the body is no JSON"):
        await models.ask("g", b"{")


async def test_a_tensor_that_is_not_there() -> None:
    """The error names the node and what there is."""

    async def features(call: PredictCall) -> Said:
        return reply(message("outputs", {"vector": [0]})[0])

    models = Models({"g": tensor_graph()}, backends={"features": "open-inference"}, features=features, score=features)
    with pytest.raises(ModelError, match=r"node b \(score/PROD\): there is no tensor 'mask' .*: vector"):
        await models.ask("g", message("inputs", {"raw": [0]})[0])
