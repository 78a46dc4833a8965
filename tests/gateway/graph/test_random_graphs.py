"""Graphs of any shape answer what a plain interpreter of theirs says, and leave nothing running when cancelled."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from marway.errors import MarwayError, ModelError
from marway_gateway.predict.call import PredictCall
from support.graph_models import Models, Said

MODELS = ("add", "double", "bad")
FAILED = object()
NOTHING = object()  # what a node answers that failed and need not answer
EXAMPLES = 2_000 if os.environ.get("MARWAY_TEST_LONG") else 25


async def add(call: PredictCall) -> Said:
    await asyncio.sleep(0)
    return b"%d" % (size_of(json.loads(call.body.whole or b"")) + 1)


async def double(call: PredictCall) -> Said:
    return b"%d" % (size_of(json.loads(call.body.whole or b"")) * 2)


async def bad(call: PredictCall) -> Said:
    await asyncio.sleep(0)
    raise ModelError("no", status=422)


def size_of(value: Any) -> int:
    """Return a number that stands for any value."""
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    return value if isinstance(value, int) else 0


def as_json(value: Any) -> Any:
    """Return it as an answer has it."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    return None if value is NOTHING else value


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a graph of up to some 12 nodes."""
    nodes: dict[str, Any] = {}

    def node(depth: int) -> str:
        name = f"n{len(nodes)}"
        nodes[name] = {}
        kinds = ["model"] if depth == 3 or len(nodes) > 12 else ["model", "sequence", "parallel", "switch"]
        kind = draw(st.sampled_from(kinds))
        made: dict[str, Any] = {"kind": kind}
        if kind == "model":
            made["model"] = draw(st.sampled_from(MODELS))
            if draw(st.booleans()):
                made["input"] = "request"
        else:
            children = [node(depth + 1) for _ in range(draw(st.integers(1, 3)))]
            if kind == "switch":
                made["cases"] = [
                    {"when": f"request > `{index}`", "node": child} for index, child in enumerate(children)
                ]
            else:
                made["nodes"] = children
            if kind == "parallel":
                made["wait"] = draw(st.sampled_from(["all", len(children)]))
        made["required"] = draw(st.integers(0, 3)) > 0
        if draw(st.integers(0, 4)) == 0:
            made["fallback"] = draw(st.sampled_from([{"constant": 7}, {"model": "add"}, {"model": "bad"}]))
        nodes[name] = made
        return name

    return {"start": node(0), "nodes": nodes}


def plain(nodes: Mapping[str, Any], name: str, value: Any, request: int) -> Any:
    """Return what a node answers, by what is written in docs/graphs.md, and nothing of the gateway's."""
    node = nodes[name]
    answer = once(nodes, node, value, request)
    if answer is not FAILED:
        return answer
    fallback = node.get("fallback")
    if fallback is not None and "constant" in fallback:
        return fallback["constant"]
    if fallback is not None:
        answer = of_model(fallback["model"], request if "input" in node else value)
    return NOTHING if answer is FAILED and not node["required"] else answer


def once(nodes: Mapping[str, Any], node: Any, value: Any, request: int) -> Any:
    match node["kind"]:
        case "model":
            return of_model(node["model"], request if "input" in node else value)
        case "sequence":
            for child in node["nodes"]:
                value = plain(nodes, child, value, request)
                if value is FAILED:
                    return FAILED
            return value
        case "switch":
            taken = next((case["node"] for index, case in enumerate(node["cases"]) if request > index), None)
            return FAILED if taken is None else plain(nodes, taken, value, request)
    answers = {child: plain(nodes, child, value, request) for child in node["nodes"]}
    if FAILED in answers.values():
        return FAILED
    if node["wait"] != "all" and NOTHING in answers.values():
        return FAILED  # who waits for so many waits for answers
    return answers


def of_model(model: str, value: Any) -> Any:
    if model == "bad":
        return FAILED
    return size_of(value) + 1 if model == "add" else size_of(value) * 2


@settings(max_examples=EXAMPLES, deadline=None)
@given(document=graphs(), request=st.integers(0, 3), turns=st.integers(0, 12))
def test_any_graph(document: Any, request: int, turns: int) -> None:
    """What the gateway makes of it is what the plain interpreter makes of it; cancelled at any turn, all has ended."""
    wanted = as_json(plain(document["nodes"], document["start"], request, request))

    async def run() -> None:
        models = Models({"g": document}, add=add, double=double, bad=bad)
        try:
            answer: Any = json.loads((await models.ask("g", b"%d" % request)).data or b"")
        except MarwayError as exc:
            answer = FAILED if exc.node is not None else exc
        assert answer == wanted or (answer is FAILED and wanted is FAILED)
        task = asyncio.create_task(models.ask("g", b"%d" % request))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert models.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if not task.cancelled():
            task.exception()

    asyncio.run(run())
