"""An old server and Marway's place, both a few lines of HTTP, asked the same requests.

tests/archiver/adopt/test_real_servers.py has the same with a real TorchServe and Marway's own pods.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidInput, Unavailable
from marway_archiver.adopt.comparing.asked import asked
from marway_archiver.adopt.comparing.calling import Server, compared_answer, server_url
from marway_archiver.adopt.comparing.clients import client_lines
from marway_archiver.adopt.comparing.comparing import Comparison, Rounds, compare, models_asked
from marway_archiver.adopt.comparing.documents import compared_document
from marway_archiver.adopt.comparing.examples import golden_of_requests
from marway_archiver.adopt.comparing.routes import Route
from marway_archiver.adopt.comparing.sent import OldAnswer, OldRequest
from marway_archiver.adopt.found import Endpoint, Found, FoundModel
from marway_archiver.adopt.pages.adopted import page_of
from support.old_servers.fake import Asked, Fake, Reply, by_body, fakes

JSON = "application/json"
INTENT = FoundModel("intent", "1.0", Endpoint("torchserve", "intent"), archive=Path("intent.mar"), labels=("PROD",))
IRIS = FoundModel(
    "iris", "1", Endpoint("v2", "iris"), backend="open-inference", directory=Path("iris"), labels=("PROD",)
)


def request(where: str, body: Any, *, model: str = "intent", version: str | None = None, **more: Any) -> OldRequest:
    route = Route("torchserve", model, version, verb="predictions")
    return OldRequest(where, route, json.dumps(body).encode(), JSON, **more)


def run(old: Any, new: Any, *requests: OldRequest, **more: Any) -> tuple[Comparison, Fake, Fake]:
    with fakes(old, new) as (one, other):
        models, unknown = models_asked([INTENT], requests)
        found = compare(models, unknown, other.client(), old=one.client(), **more)
        return found, one, other


def test_equal_and_differing_answers_are_counted_by_field() -> None:
    """Numbers within the tolerance are equal; else fields, decisions and errors are told, request by request."""
    before = {1: {"label": "a", "score": 0.5}, 2: {"label": "a", "score": 0.9}, 3: "text", 4: {"label": "a"}}
    after = {
        1: {"label": "a", "score": 0.50001}, 2: {"label": "b", "score": 0.7}, 3: "text",
        4: (500, JSON, b'{"code": 500, "message": "boom"}'),
    }  # fmt: skip
    requests = [request(f"f:{number}", number) for number in before] + [request("f:9", 1, model="gone")]
    found, old, new = run(by_body(before), by_body(after), *requests, rounds=Rounds(pairs=12))
    (model,) = found.models
    assert (model.requests, model.equal, model.differing) == (4, 2, 2)
    assert (model.decides_otherwise, model.failed, model.unsteady) == (2, 1, 0)
    assert model.fields == {"label": 1, "score": 1}
    assert [each.where for each in model.examples] == ["f:2", "f:4"]
    assert "status 500" in model.examples[1].difference
    assert "boom" in model.examples[1].difference
    assert found.not_found == {"gone": 1}
    assert not found.ok
    assert model.timing is not None
    assert model.timing.pairs == 9, "pairs of which one failed are not measured"
    assert {each.path for each in new.asked} == {"/predictions/intent"}
    assert len(old.asked) == 4 * 2 + 12, "twice to compare, then for the times"
    document = compared_document(found, old="http://old", new="http://new")
    assert json.loads(json.dumps(document))["models"][0]["timing"]["pairs"] == 9


def test_an_old_server_that_answers_otherwise_each_time_is_said() -> None:
    """What it does not repeat itself is unsteady, whatever Marway says; and is no golden example."""
    count = iter(range(1000))
    request_ = request("f:1", 1)

    def unsteady(_: Asked) -> Reply:
        return 200, JSON, json.dumps({"n": next(count)}).encode()

    found, _, _ = run(unsteady, by_body({1: {"n": 0}}), request_, rounds=Rounds(pairs=1))
    assert found.models[0].unsteady == 1
    with fakes(unsteady, unsteady) as (old, _):
        golden = golden_of_requests(INTENT, [request_], old.client())
    assert golden.examples == ()
    assert "otherwise the second time" in golden.left_out[0]


def test_once_sends_each_request_once() -> None:
    """Nothing is asked of an old server more often than needed."""
    found, old, new = run(
        by_body({1: 1, 2: 2}), by_body({1: 1, 2: 2}), request("a", 1), request("b", 2), rounds=Rounds(once=True)
    )
    assert found.ok
    assert (len(old.asked), len(new.asked)) == (2, 2)


def test_servers_that_do_not_answer() -> None:
    """A connection that closes is told as such, and the other requests are compared."""
    answers = {1: (0, None, b""), 2: 2}
    found, _, _ = run(by_body({1: 1, 2: 2}), by_body(answers), request("a", 1), request("b", 2), rounds=Rounds(pairs=1))
    (model,) = found.models
    assert (model.equal, sum(model.not_compared.values())) == (1, 1)
    assert "Marway: no answer" in next(iter(model.not_compared))
    with pytest.raises(Unavailable, match="no server listens"):
        Server("http://127.0.0.1:9", 1).check_there()


def test_recorded_answers_stand_for_a_server_that_is_gone() -> None:
    """A file's answers are compared with, and nothing is measured."""
    with fakes(by_body({}), by_body({1: {"a": 1}, 2: 2})) as (_, new):
        requests = [request("f:1", 1, answer=OldAnswer(200, None, b'{"a": 1.00001}')), request("f:2", 2)]
        models, unknown = models_asked([INTENT], requests)
        found = compare(models, unknown, new.client(), old=None)
        (model,) = found.models
        assert (model.equal, model.timing) == (1, None)
        assert model.not_compared == {"the old server: the file has no answer of it to this request": 1}


def test_versions_are_asked_as_the_old_server_knows_them() -> None:
    """Paths with and without a version find theirs; a version that is not the label's is named to Marway."""
    second = FoundModel("intent", "2.0", Endpoint("torchserve", "intent", "two"))
    third = FoundModel("other", "1.0", Endpoint("torchserve", "old other", host="other.shop.test"), labels=("STG",))
    requests = [
        request("a", 1), request("b", 1, version="1.0"), request("c", 1, version="two"), request("d", 1, version="9"),
        request("e", 1, model="old other"),
    ]  # fmt: skip
    models, unknown = models_asked([INTENT, second, third], requests)
    assert [[one.where for one in each.requests] for each in models] == [["a", "b"], ["c"], ["e"]]
    assert unknown == {"intent/9": 1}
    paths = [each.at_marway(one.route).path for each in models for one in each.requests]
    assert paths == [
        *("/predictions/intent", "/predictions/intent/1.0", "/predictions/intent/2.0", "/predictions/other/STG"),
    ]
    lines = client_lines(Found("torchserve", "store", (INTENT, second, third)), models, old="http://old:8080")
    changed = {each.before: (each.after, each.why) for each in lines}
    assert changed["http://old:8080/predictions/intent"] == ("http://GATEWAY:8000/predictions/intent", "the host")
    assert "the version is called 2.0" in changed["http://old:8080/predictions/intent/two"][1]
    why = changed["http://old:8080/predictions/old%20other"][1]
    assert all(part in why for part in ("is called other", "STG has to be named", "Host: other.shop.test"))


def test_golden_examples_of_both_kinds() -> None:
    """A handler's are what TorchServe's clients sent; a bundle's state what its server answers, without its names."""
    answer = {"model_name": "iris", "model_version": "1", "id": "x", "outputs": [{"name": "y", "data": [1]}]}
    with fakes(lambda _: (200, JSON, json.dumps(answer).encode()), by_body({})) as (old, _):
        server = old.client()
        v2 = OldRequest("v", Route("v2", "iris", verb="infer"), b'{"inputs": []}', JSON)
        (example,) = golden_of_requests(IRIS, [v2], server).examples
        assert example.output == {"outputs": answer["outputs"]}
        golden = golden_of_requests(INTENT, [v2, request("a", 1), request("b", 2), request("c", 3)], server, most=2)
        assert golden.signature is None
    assert [each.input for each in golden.examples] == [b"1", b"2"]
    assert len(golden.left_out) == 2
    assert "not just one input" in golden.left_out[0]
    with fakes(by_body({1: (404, None, b"no")}), by_body({})) as (old, _):
        assert golden_of_requests(INTENT, [request("a", 1)], old.client()).examples == ()
    assert golden_of_requests(IRIS, [v2], None).examples == ()
    assert len(golden_of_requests(INTENT, [request("a", 1)], None).examples) == 1, "its handler will answer"


def test_rows_of_v1_and_v2_are_golden_examples_of_a_handler() -> None:
    """They are what the handler gets; clients of v2 keep the names and datatypes of tensors that they know."""

    def asked_by(protocol: Any, verb: str, document: Any) -> OldRequest:
        return OldRequest("f:1", Route(protocol, "intent", verb=verb), json.dumps(document).encode(), JSON)

    def rows(sent: OldRequest, answer: Any = "x") -> Any:
        with fakes(lambda _: (200, JSON, json.dumps(answer).encode()), by_body({})) as (old, _):
            return golden_of_requests(INTENT, [sent], old.client())

    v1 = rows(asked_by("v1", "predict", {"instances": ["a", {"text": "b"}, "a"]}))
    assert [(each.input, each.content_type) for each in v1.examples] == [(b"a", "text/plain"), (b'{"text":"b"}', JSON)]
    x = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
    y = {"name": "y", "shape": [3], "datatype": "FP64", "data": [1, 2, 3]}
    v2 = rows(asked_by("v2", "infer", {"inputs": [x]}), {"outputs": [y]})
    assert [each.input for each in v2.examples] == [b"[1,2,3]", b"[4,5,6]"]
    assert v2.signature is not None
    (taken,), (given,) = v2.signature.inputs, v2.signature.outputs
    assert (taken.name, taken.datatype, taken.shape) == ("x", "FP32", (-1, 3))
    assert (given.name, given.datatype, given.shape) == ("y", "FP64", (-1, 3))
    for protocol, verb, document, why in (
        ("v1", "predict", {"instances": [{"b64": "AA=="}]}, "bytes"),
        ("v1", "predict", {}, "no instances"),
        ("v2", "infer", {"inputs": [x, x]}, "not just one input"),
        ("v2", "infer", {"inputs": [{**x, "data": [1]}]}, "neither flat"),
        ("torchserve", "explanations", 1, "asks for explanations"),
    ):
        found = rows(asked_by(protocol, verb, document))
        assert found.examples == ()
        assert why in found.left_out[0]


def test_v2_models_are_asked_what_their_metadata_allow() -> None:
    """Without requests, tensors are made up, of every datatype that JSON has; what has none is said."""
    inputs = [
        *({"name": each, "datatype": each, "shape": [-1, 2]} for each in ("FP32", "INT64", "UINT8", "BOOL", "BYTES")),
    ]

    def reply(asked: Asked) -> Reply:
        if asked.path == "/v2/models/iris":
            return 200, JSON, json.dumps({"name": "iris", "inputs": inputs}).encode()
        tensors = json.loads(asked.body)["inputs"]
        assert [each["shape"] for each in tensors] == [[1, 2]] * len(inputs)
        return 200, JSON, json.dumps({"outputs": [{**tensors[0], "name": "y"}]}).encode()

    with fakes(reply, reply) as (old, new):
        found = asked(Found("triton", "models", (IRIS,)), None, old.client())
        assert len(found.requests.found) == 3
        assert len(found.examples["iris/1"]) == 3
        assert compare(found.models, {}, new.client(), old=found.old, rounds=Rounds(pairs=1)).ok
        inputs[:] = [{"name": "x", "datatype": "BF16", "shape": [1]}]
        assert "BF16" in asked(Found("triton", "models", (IRIS,)), None, old.client()).notes[0]
    with fakes(reply, reply) as (old, _):
        assert "--requests" in asked(Found("torchserve", "s", (INTENT,)), None, old.client()).notes[0]


def test_answers_are_read_as_clients_read_them() -> None:
    """JSON that TorchServe names no type of is compared as JSON with one that is named; v2's own names do not count."""
    unnamed = OldAnswer(200, None, b'{"score": 0.25}')
    assert compared_answer(unnamed, "torchserve").kind == "text"
    one = (200, None, b'{"score": 0.25}')
    found, _, _ = run(by_body({1: one}), by_body({1: {"score": 0.25001}}), request("a", 1), rounds=Rounds(pairs=1))
    assert found.ok
    v2 = OldAnswer(200, JSON, b'{"model_name": "a", "model_version": "1", "id": "7", "outputs": []}')
    assert compared_answer(v2, "v2").value == {"outputs": []}
    assert compared_answer(v2, "v2", has_id=True).value == {"id": "7", "outputs": []}
    assert compared_answer(OldAnswer(200, "image/png", b"\x89"), "torchserve").kind == "bytes"


@pytest.mark.parametrize("url", ["old:8080", "ftp://old", "http://", "http://old/?a", "http://u:p@old", "http://old:0"])
def test_what_is_no_server_is_refused(url: str) -> None:
    """Addresses are checked before anything is asked."""
    with pytest.raises(InvalidInput, match="--from"):
        server_url(url, flag="--from")


def test_a_report_says_all_of_it_as_a_page() -> None:
    """Markdown and HTML have the same; what others wrote becomes no markup."""
    found, _, _ = run(by_body({1: {"<b>": 1}}), by_body({1: {"<b>": 2}}), request("a|b", 1), rounds=Rounds(pairs=8))
    setting = {"name": "a|b", "value": "<script>", "outcome": "none", "becomes": "nothing *like* it"}
    model = {
        "name": "intent", "version": "1.0", "backend": "torchserve", "labels": ["PROD"], "outcome": "published",
        "sha256": "ab" * 32, "problem": None, "repacked": None, "warnings": ["<i> ` <u>"], "settings": [setting],
    }  # fmt: skip
    compared = compared_document(found, old="http://old", new="a gateway")
    document = {
        "kind": "torchserve", "source": "/srv/store", "notes": ["read [x]"], "settings": [], "models": [model],
        "comparison": {**compared, "proofs": {"intent/1.0": "pod-0, native, loaded it"}},
        "client": [{"what": "v1", "before": "http://old/a", "after": "http://new/a", "why": "the host", "tried": True}],
    }  # fmt: skip
    text, html = page_of(document, ".md"), page_of(document, ".html")
    assert "- http://old/a\n+ http://new/a" in text
    assert "1 different request sent to both: 0 answered the same" in text
    assert "| `a\\|b` | `<script>` | nothing like it | nothing \\*like\\* it |" in text
    assert "\\<i\\> \\` \\<u\\>" in text
    assert "<script>" not in html.replace("&lt;script&gt;", "")
    assert html.count("<table>") == text.count("| --- |\n")
