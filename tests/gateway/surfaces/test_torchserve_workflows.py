"""Workflows of TorchServe over a gateway: its path asks a graph, whose nodes get others' answers as forms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from gateway.fakes import FakePod, running
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from support.graphs import publish_graph
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
GRAPH = {
    "nodes": {
        "all": {"kind": "sequence", "nodes": ["first", "both", "last"]},
        "both": {"kind": "parallel", "nodes": ["a", "b"]},
        "first": {"kind": "model", "model": "first"},
        "a": {"kind": "model", "model": "one", "parts": {"body": "first"}},
        "b": {"kind": "model", "model": "two", "parts": {"body": "first"}},
        "last": {"kind": "model", "model": "last", "parts": {"A-1": "a", "B-2": "b"}},
    },
    "start": "all",
}


async def raw(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer with bytes that are neither JSON nor text, and say in front which model they are of."""
    model = request.path.split("/")[2].encode()
    return web.Response(body=model + b"\xff\x00", headers={OUTCOME: Outcome.ANSWERED})


async def test_a_workflow(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """`/wfpredict` asks a graph, by its label or as the path says; bytes go from node to node as they are."""
    for name in ("first", "one", "two", "last"):
        publish(registry, tmp_path, name)
    publish_graph(registry, tmp_path, GRAPH)
    pod = await make_pod(behave=raw)
    async with running(pod, registry=registry) as gateway:
        client = gateway.client
        answer = await client.post("/wfpredict/tour", content=b"hello")
        others = [
            await client.request(method, path)
            for method, path in (("PUT", "/wfpredict/tour/1.0"), ("GET", "/wfpredict/tour"))
        ]
        missing = [await client.post(f"/wfpredict/{name}", content=b"x") for name in ("nobody", "first")]
        managed = [
            await gateway.admin.request(method, path)
            for method, path in (("POST", "/workflows?url=a.war"), ("GET", "/workflows"), ("DELETE", "/workflows/tour"))
        ]
    assert (answer.status_code, answer.content) == (200, b"last\xff\x00")
    assert [each.status_code for each in others] == [200, 200]
    given = {each.path.split("/")[2]: each for each in pod.requests[:4]}
    assert b'name="A-1"\r\n\r\none\xff\x00\r\n' in given["last"].body
    assert b'name="B-2"\r\n\r\ntwo\xff\x00\r\n' in given["last"].body
    assert b'name="body"\r\n\r\nfirst\xff\x00\r\n' in given["one"].body
    assert given["last"].headers["content-type"].startswith("multipart/form-data")
    assert {(each.status_code, each.json()["type"]) for each in missing} == {(404, "WorkflowNotFoundException")}
    assert "marway graph import" in missing[0].json()["message"]
    assert "POST /predictions/first" in missing[1].json()["message"]
    assert {(each.status_code, each.json()["type"]) for each in managed} == {(405, "MethodNotAllowedException")}
    assert [each.json()["message"].count("`marway ") for each in managed] == [1, 2, 1]
