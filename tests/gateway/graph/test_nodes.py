"""Each kind of node: what it is given and answers, and what becomes of it when it fails, is late or is cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from marway.errors import (
    DeadlineExceeded,
    InvalidGraph,
    InvalidRequest,
    MarwayError,
    ModelError,
    NoPodAvailable,
    NotFound,
    Overloaded,
    Unavailable,
    Unimplemented,
)
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway_gateway.predict.call import PredictCall
from support.graph_models import Model, Models, Said, reply

JSON = "application/json"


def model(name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "model", "model": name, **fields}


def graph(start: Mapping[str, Any], **nodes: Any) -> dict[str, Any]:
    return {"nodes": {"top": start, **nodes}, "start": "top"}


async def echo(call: PredictCall) -> Said:
    """Give back what was sent, by name."""
    body = (call.body.whole or b"").decode()
    return json.dumps({"by": call.name, "given": json.loads(body) if body.startswith(("{", "[")) else body}).encode()


async def never(call: PredictCall) -> Said:
    await asyncio.Event().wait()
    raise AssertionError


def failing(error: MarwayError, times: int = 1 << 30) -> Model:
    """Return a model that fails so often, and answers then."""
    left = [times]

    async def fail(call: PredictCall) -> Said:
        left[0] -= 1
        if left[0] >= 0:
            error.model, error.version = call.name, "1.0"
            raise error
        return await echo(call)

    return fail


class Rows:
    """A table of two."""

    def __init__(self, error: MarwayError | None = None, wait: bool = False) -> None:
        self.error, self.wait = error, wait
        self.asked: list[Sequence[Any]] = []

    async def rows(
        self, resolved: Resolved, keys: Sequence[Any], columns: Sequence[str] | None
    ) -> list[Mapping[str, Any] | None]:
        self.asked.append((keys, columns))
        if self.error is not None:
            raise self.error
        if self.wait:
            await asyncio.Event().wait()
        table = {"u1": {"age": 3}, "u2": {"age": 4}}
        return [table.get(key) for key in keys]


KINDS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "model": (model("m"), {}),
    "sequence": ({"kind": "sequence", "nodes": ["leaf"]}, {"leaf": model("m")}),
    "parallel": ({"kind": "parallel", "nodes": ["leaf"]}, {"leaf": model("m")}),
    "switch": ({"kind": "switch", "cases": [{"when": "request", "node": "leaf"}]}, {"leaf": model("m")}),
    "splitter": ({"kind": "splitter", "weights": {"leaf": 1}}, {"leaf": model("m")}),
    "lookup": ({"kind": "lookup", "table": "t", "key": "request.id", "into": "row"}, {}),
}
ASKED = b'{"id": "u1"}'


def of_kind(kind: str, error: MarwayError | None = None, *, times: int = 1 << 30, **fields: Any) -> Models:
    """Return a graph that starts with a node of a kind that fails so, or never ends."""
    top, more = KINDS[kind]
    document = graph({**top, **fields}, **more)
    failed = never if error is None else failing(error, times)
    return Models({"g": document}, m=failed, other=echo, tables=Rows(error, wait=error is None))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_node_fails_the_graph_by_name(kind: str) -> None:
    """The error is the node's own, of its kind, and says which node and whom it asked."""
    with pytest.raises(Unavailable) as caught:
        await of_kind(kind, NoPodAvailable("nobody there", retry_after_s=3)).ask("g", ASKED)
    leaf = "top" if kind in ("model", "lookup") else "leaf"
    asked = "t/PROD" if kind == "lookup" else "m 1.0"
    assert type(caught.value) is NoPodAvailable
    assert (caught.value.node, caught.value.retry_after_s) == (leaf, 3)
    assert caught.value.message == f"node {leaf} ({asked}): nobody there"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_late_node_is_ended(kind: str) -> None:
    """What does not end within its `timeout_s` fails by name, and nothing of it runs on."""
    models = of_kind(kind, timeout_s=0.01)
    with pytest.raises(DeadlineExceeded, match=r"node top.*: gave no answer within its timeout_s of 0.01 s") as caught:
        await models.ask("g", ASKED)
    assert caught.value.node == "top"
    assert models.running == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fallback_answers(kind: str) -> None:
    """A constant, or another version that is given what the node was; the answer's notes say so."""
    constant = of_kind(kind, Overloaded("full"), fallback={"constant": {"score": 0}})
    answer = await constant.ask("g", ASKED)
    assert (answer.data, answer.headers) == (b'{"score":0}', [(b"content-type", b"application/json")])
    assert constant.info.notes == (("x-marway-graph", "top=fallback"),)
    other = of_kind(kind, Overloaded("full"), fallback={"model": "other"})
    assert json.loads((await other.ask("g", ASKED)).data or b"") == {"by": "other", "given": {"id": "u1"}}
    assert "node-top;dur=" in other.info.steps


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_need_not_answer(kind: str) -> None:
    """Its answer is null, and the answer's notes say that it failed."""
    models = of_kind(kind, ModelError("no"), required=False)
    assert (await models.ask("g", ASKED)).data == b"null"
    assert models.info.notes == (("x-marway-graph", "top=failed"),)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lookup"])
async def test_a_node_is_tried_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it may be, where another try may help."""
    monkeypatch.setattr("marway_gateway.graph.running._PAUSE_S", 0.001)
    models = of_kind(kind, Overloaded("full"), times=2, retries=2)
    await models.ask("g", ASKED)
    assert len(models.asked) == 3
    models = of_kind(kind, Overloaded("full"), times=3, retries=2)
    with pytest.raises(Overloaded):
        await models.ask("g", ASKED)
    assert len(models.asked) == 3


@pytest.mark.parametrize(
    ("error", "retry_rows", "tries"),
    [
        (ModelError("it broke"), True, 2),
        (ModelError("it broke"), False, 1),
        (ModelError("not so", status=422), True, 1),
        (InvalidRequest("not so"), True, 1),
        (NotFound("no such"), True, 1),
        (Unimplemented("no such"), True, 1),
        (Unavailable("died with it"), True, 2),
        (Unavailable("died with it"), False, 1),
        (NoPodAvailable("nobody"), False, 2),
        (DeadlineExceeded("late"), True, 2),
        (DeadlineExceeded("late"), False, 1),
    ],
)
async def test_what_is_tried_again(error: MarwayError, retry_rows: bool, tries: int) -> None:
    """Not what is the caller's fault, nor what may have begun of a version whose work may not be done twice."""
    serving = {"m": ServingSettings(retry_rows=retry_rows)}
    models = Models({"g": graph(model("m", retries=1))}, serving=serving, m=failing(error))
    with pytest.raises(MarwayError):
        await models.ask("g")
    assert len(models.asked) == tries


async def test_both_failures_are_told() -> None:
    """Where the fallback fails too, the node's own error is raised, and says what became of the fallback."""
    top = model("m", fallback={"model": "n", "selector": "2.0"})
    models = Models({"g": graph(top)}, m=failing(Overloaded("full")), n=failing(ModelError("broke")))
    with pytest.raises(Overloaded, match=r"full; its fallback n/2\.0 failed too: node top \(n 1\.0\): broke"):
        await models.ask("g")


async def test_an_answer_that_is_an_error_fails_its_node() -> None:
    """The model's own status and words."""

    async def refuse(call: PredictCall) -> Said:
        return reply(b'{"error": "too short"}', status=413)

    with pytest.raises(ModelError, match=r"node top \(m 1\.0\): too short") as caught:
        await Models({"g": graph(model("m"))}, m=refuse).ask("g")
    assert (caught.value.status, caught.value.node) == (413, "top")


async def test_the_deadline_of_all() -> None:
    """It says which nodes had not answered; all are ended."""
    both = {"kind": "parallel", "nodes": ["a", "b"]}
    for within_s in (0.02, 0.2, 2, 20):  # a slow machine may not have begun in time
        models = Models({"g": graph(both, a=model("m"), b=model("m"))}, m=never)
        with pytest.raises(DeadlineExceeded) as caught:
            await models.ask("g", within_s=within_s)
        if len(models.asked) == 2:
            break
    assert caught.value.message == f"the request's deadline of {within_s:g} s passed: node a, b had not answered"
    assert (caught.value.node, models.running) == ("a", 0)


async def test_a_caller_that_leaves_ends_all() -> None:
    """Nothing runs on when the task that asked is cancelled, however deep it lies."""
    inner = graph({"kind": "sequence", "nodes": ["a"]}, a=model("m", timeout_s=9, retries=3))
    outer = graph({"kind": "parallel", "nodes": ["x", "y"]}, x=model("inner", retries=3), y=model("m", required=False))
    models = Models({"outer": outer, "inner": inner}, m=never)
    task = asyncio.create_task(models.ask("outer"))
    while models.running < 2:
        await asyncio.sleep(0)
    before = len(models.asked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (models.running, len(models.asked)) == (0, before)


async def test_sequence_and_data() -> None:
    """Without `input` a node gets the bytes before it with their type; with it what the expression selects."""

    async def shout(call: PredictCall) -> Said:
        return reply((call.body.whole or b"").upper(), call.headers["content-type"], x_own="yes")

    chain = {"kind": "sequence", "nodes": ["a", "b"]}
    models = Models({"g": graph(chain, a=model("shout"), b=model("shout"))}, shout=shout)
    answer = await models.ask("g", b"\xffab", "image/png", inference_header="1")
    assert answer.data == b"\xffAB"
    assert (b"content-type", b"image/png") in answer.headers
    assert (b"x-own", b"yes") in answer.headers
    chosen = model("echo", input="[request.n, nodes.a.by]")
    models = Models({"g": {**graph(chain, a=model("echo"), b=chosen), "output": "{b: nodes.b.given}"}}, echo=echo)
    answer = await models.ask("g", b'{"n": 1}')
    assert (models.asked[0], json.loads(answer.data or b"")) == (("echo", b'{"n": 1}'), {"b": [1, "echo"]})
    text = model("echo", input="request", content_type="text/plain")
    models = Models({"g": graph(text)}, echo=echo)
    await models.ask("g", "grün".encode(), "text/plain")
    assert models.asked == [("echo", "grün".encode())]
    assert models.calls[0].headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("fields", "body", "content_type", "says"),
    [
        ({"input": "request.a"}, b"{}", JSON, "its expression `request.a` selects nothing of what there is"),
        ({"input": "request.a"}, b"\xff", "image/png", "`request.a` looks into the request, which is neither JSON nor"),
        ({"input": "request.a"}, b"{", JSON, "looks into the request, which is called application/json, and is no"),
        ({"input": "length(request)"}, b"1", JSON, "its expression `length(request)` cannot be evaluated: "),
        ({"input": "request", "content_type": "text/plain"}, b"1", JSON, "its input `request` selects no text"),
        ({"tensors": {"x": "y"}}, b'{"outputs": []}', JSON, "there is no tensor 'x' among the outputs of what it is"),
    ],
)
async def test_input_that_cannot_be(fields: Any, body: bytes, content_type: str, says: str) -> None:
    """The error names node and expression, and nobody is asked."""
    models = Models({"g": graph(model("m", **fields))}, m=echo)
    with pytest.raises(MarwayError) as caught:
        await models.ask("g", body, content_type)
    assert caught.value.message.startswith("node top (m/PROD): ")
    assert says in caught.value.message
    assert models.asked == []


def waiting_for(wait: Any, **nodes: Any) -> dict[str, Any]:
    return graph({"kind": "parallel", "nodes": list(nodes), "wait": wait}, **nodes)


async def test_parallel() -> None:
    """All, the first that answers, or so many; those that are not waited for are ended, and failures do not count."""
    three = {"a": model("never"), "b": model("echo", input="'b'"), "c": model("bad")}
    bad = failing(ModelError("no"))
    for wait, nodes, names in (
        ("any", three, ["b"]),
        (2, {**three, "d": model("echo")}, ["b", "d"]),
        ("all", {"b": three["b"], "c": model("bad", required=False)}, ["b", "c"]),
    ):
        models = Models({"g": waiting_for(wait, **nodes)}, never=never, echo=echo, bad=bad)
        answer = json.loads((await models.ask("g")).data or b"")
        assert list(answer) == names
        assert answer["b"] == {"by": "echo", "given": '"b"'}
        assert answer.get("c") is None
        assert models.running == 0
    for wait, says in (("all", "node c"), (2, "node c"), ("any", "")):
        models = Models({"g": waiting_for(wait, b=three["b"], c=three["c"])}, echo=echo, bad=bad)
        if says:
            with pytest.raises(ModelError, match=says):
                await models.ask("g")
        else:
            await models.ask("g")
    models = Models({"g": waiting_for("any", c=model("bad", required=False))}, bad=bad)
    with pytest.raises(Unavailable, match="node top: 0 of its nodes answered, and it waits for 1"):
        await models.ask("g")


async def test_switch() -> None:
    """The first case that holds, as JMESPath has it: a 0 is true; else the default, else an error."""
    cases = [{"when": "request.n == `1`", "node": "a"}, {"when": "request.zero", "node": "b"}]
    top = {"kind": "switch", "cases": cases}
    nodes = {"a": model("a"), "b": model("b")}
    models = Models(
        {"g": graph(top, **nodes), "d": graph({**top, "default": "c"}, c=model("c"), **nodes)}, a=echo, b=echo, c=echo
    )
    for body in (b'{"n": 1}', b'{"zero": 0}', b'{"zero": []}'):
        await models.ask("d", body)
    assert [name for name, _ in models.asked] == ["a", "b", "c"]
    with pytest.raises(InvalidRequest, match="node top: none of its cases holds, and it has no default"):
        await models.ask("g")


async def test_splitter() -> None:
    """By weights, and always the same for the same caller."""
    top = {"kind": "splitter", "weights": {"a": 3, "b": 1}, "sticky": "header:x-user"}
    models = Models({"g": graph(top, a=model("a"), b=model("b"))}, a=echo, b=echo)
    sides = {}
    for user in range(160):
        await models.ask("g", x_user=str(user))
        sides[user] = models.asked[-1][0]
    assert 95 < list(sides.values()).count("a") < 145
    for user in range(20):
        await models.ask("g", x_user=str(user))
        assert models.asked[-1][0] == sides[user]


async def test_lookup() -> None:
    """The row, or the rows of a list of keys, joined to what the node was given."""
    top = {"kind": "sequence", "nodes": ["find", "score"]}
    find = {"kind": "lookup", "table": "users", "key": "request.id", "into": "user", "columns": ["age"]}
    tables = Rows()
    models = Models({"g": graph(top, find=find, score=model("echo"))}, echo=echo, tables=tables)
    await models.ask("g", b'{"id": "u1"}')
    await models.ask("g", b'{"id": ["u2", "u1"]}')
    assert [json.loads(body)["user"] for _, body in models.asked] == [{"age": 3}, [{"age": 4}, {"age": 3}]]
    assert tables.asked == [(["u1"], ("age",)), (["u2", "u1"], ("age",))]
    assert models.info.steps.startswith("node-find;dur=")
    assert 'desc="users 1.0"' in models.info.steps
    with pytest.raises(InvalidRequest, match=r'node find \(users 1\.0\): there is no key "u9" in it'):
        await models.ask("g", b'{"id": "u9"}')
    models = Models({"g": graph({**find, "missing": "null"})}, tables=tables)
    assert json.loads((await models.ask("g", b'{"id": "u9"}')).data or b"")["user"] is None
    models = Models({"g": graph({**find, "key": "request"})}, tables=tables)
    with pytest.raises(ModelError, match=r"node top .*: what it is given is no JSON object"):
        await models.ask("g", b'"u1"')


async def test_graphs_of_graphs() -> None:
    """Errors, timings and notes have the path; labels that lead back to a graph are found by depth."""
    inner = graph({"kind": "sequence", "nodes": ["a", "b"]}, a=model("bad", required=False), b=model("bad"))
    outer = graph(model("inner"))
    models = Models({"outer": outer, "inner": inner}, bad=failing(ModelError("no")))
    with pytest.raises(ModelError, match=r"^node top/b \(bad 1\.0\): no$") as caught:
        await models.ask("outer")
    assert caught.value.node == "top/b"
    assert models.info.notes == (("x-marway-graph", "top/a=failed"),)
    names = [each.partition(";")[0] for each in models.info.steps.split(", ")]
    assert names == ["node-top.a", "node-top.b", "node-top.top", "node-top"]
    with pytest.raises(
        InvalidGraph, match=r"^node top/top/top/top \(round 1\.0\): round 1\.0 lies 5 graphs deep; 4 is"
    ):
        await Models({"round": graph(model("round"))}).ask("round")


@pytest.mark.parametrize("header", ["x_marway_explain", "x_marway_describe"])
async def test_graphs_do_not_explain(header: str) -> None:
    with pytest.raises(Unimplemented, match="is a graph, which has no"):
        await Models({"g": graph(model("m"))}, m=echo).ask("g", **{header: "1"})
