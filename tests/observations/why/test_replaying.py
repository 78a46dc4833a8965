"""The same question again, to the very version: by each protocol, and compared as golden answers are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.conftest import make_pod
from gateway.fakes import FakePod, broken_model, running
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway_observations.why import NotReplayed, replayed
from marway_observations.why.replaying import question_of
from support.observations import observation
from support.registry import publish

__all__ = ["make_pod"]

MakePod = Callable[..., Awaitable[FakePod]]


def kept(**fields: Any) -> dict[str, Any]:
    columns = dict.fromkeys(("error", "input_type", "output_type", "input", "output", "request_id"))
    return {**columns, **observation(fields.pop("output", {"score": 0.5}), version="1.0", **fields), "model": "intent"}


async def test_compared(registry: Registry, tmp_path: Path, make_pod: MakePod) -> None:
    """The version that answered is asked, not the one that its label points at now; numbers may differ by a hair."""
    publish(registry, tmp_path)
    publish(registry, tmp_path, "intent", "2.0")
    score = 0.5

    async def scored(pod: FakePod, request: web.Request) -> web.StreamResponse:
        headers = {"content-type": "application/json", OUTCOME: Outcome.ANSWERED}
        return web.Response(body=json.dumps({"score": score}).encode(), headers=headers)

    pod = await make_pod("a", behave=scored)
    row = kept(input=b"hello", input_type="text/plain")
    async with running(pod, registry=registry) as gateway:

        async def again(row: dict[str, Any]) -> dict[str, Any]:
            url = gateway.addresses.gateway
            return await asyncio.to_thread(replayed, row, registry, gateway=url, token=None, timeout_s=20)

        score = 0.500_01
        told = await again(row)
        assert (told["same"], told["difference"]) == (True, None)
        seen = pod.requests[-1]
        assert (seen.path, seen.body, seen.headers["content-type"]) == ("/predict/intent/1.0", b"hello", "text/plain")
        assert seen.headers["x-request-id"] == f"replay-{row['prediction_id']}"
        score = 0.6
        told = await again(row)
        assert told["same"] is False
        assert "score" in told["difference"]
        pod.behave = broken_model
        failed = {**row, "output": None, "output_type": None, "bodies": "failed", "status": "422"}
        told = await again({**failed, "outcome": "model_error", "error": "model_error"})
        assert told["same"] is True
        with pytest.raises(Exception, match="KeyError"):
            await again(row)


JSON = "application/json"
OF_JSON = {"content-type": JSON}


@pytest.mark.parametrize(
    ("fields", "path", "headers"),
    [
        ({"surface": "torchserve", "input": b"x"}, "/predictions/intent/1.0", {}),
        ({"surface": "torchserve_grpc", "input": b"x", "input_type": JSON}, "/predict/intent/1.0", OF_JSON),
        ({"surface": "v1", "input": {"instances": [1]}}, "/v1/models/intent/versions/1.0:predict", OF_JSON),
        (
            {"surface": "v1", "input": {"examples": [1]}, "output": {"results": [[["a", 0.5]]]}},
            "/v1/models/intent/versions/1.0:classify",
            OF_JSON,
        ),
        (
            {"surface": "v1", "input": {"examples": [1]}, "output": {"results": [0.5]}},
            "/v1/models/intent/versions/1.0:regress",
            OF_JSON,
        ),
    ],
)
def test_question(fields: dict[str, Any], path: str, headers: dict[str, str]) -> None:
    """Each protocol's request is made as its caller made it."""
    row = kept(**fields)
    asked = question_of(row)
    assert (asked.path, asked.body, asked.headers) == (path, row["input"], headers)


@pytest.mark.parametrize("surface", ["open_inference", "open_inference_grpc"])
def test_question_of_open_inference(surface: str) -> None:
    """However the tensors came they are kept as JSON, and so are the outputs: such are asked for."""
    outputs = [{"name": "y", "parameters": {"binary_data": True, "classification": 2}}]
    asked = {"id": "7", "parameters": {"binary_data_output": True}, "inputs": [{"name": "x", "data": [1]}]}
    question = question_of(kept(surface=surface, input={**asked, "outputs": outputs}))
    assert (question.path, question.headers) == ("/v2/models/intent/versions/1.0/infer", OF_JSON)
    assert json.loads(question.body) == {
        **asked,
        "parameters": {},
        "outputs": [{"name": "y", "parameters": {"classification": 2}}],
    }


@pytest.mark.parametrize(
    ("wants", "output", "route"),
    [
        ("messages", None, "chat/completions"),
        ("prompt", {"object": "text_completion"}, "completions"),
        ("input", {"object": "list"}, "embeddings"),
        ("input", {"object": "response"}, "responses"),
    ],
)
def test_question_of_openai(wants: str, output: dict[str, str] | None, route: str) -> None:
    """OpenAI's requests name the version in the place of what their caller named."""
    asked = question_of({**kept(surface="openai", input={"model": "intent", wants: "x"}, output=output or {})})
    assert asked.path == f"/openai/v1/{route}"
    assert json.loads(asked.body) == {"model": "intent/1.0", wants: "x"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"surface": "open_inference", "input": {"parameters": {"sequence_id": 4}}}, "of a sequence"),
        ({"surface": "open_inference", "input": b"no", "input_type": "application/octet-stream"}, "no JSON object"),
        ({"surface": "carrier_pigeon"}, "cannot be asked again"),
        ({"surface": "v1", "input": [1]}, "no JSON object"),
        ({"surface": "openai", "input": {"x": 1}, "output": {}}, "which of OpenAI's routes"),
    ],
)
def test_no_question(fields: dict[str, Any], why: str) -> None:
    """What cannot be made again, or must not, is told as such."""
    with pytest.raises(NotReplayed, match=why):
        question_of(kept(**{"input": b"x", **fields}))


@pytest.mark.parametrize(
    ("bodies", "why"),
    [("off", "observe=bodies"), ("too_large", "too large"), ("streamed", "in pieces"), ("failed", "failed before")],
)
def test_nothing_kept(registry: Registry, bodies: str, why: str) -> None:
    row = {**kept(bodies=bodies), "input": None}
    with pytest.raises(NotReplayed, match=why):
        replayed(row, registry, gateway="http://127.0.0.1:1", token=None, timeout_s=1)
