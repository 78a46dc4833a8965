"""OpenAI's API: what goes to a model and what comes back, in its words, and its errors."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import web

from gateway.fakes import Behaviour, FakePod, Running, busy, fail, running
from gateway.handlers import ready
from marway.errors import ModelError
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, decode_rows, encode_answers
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.surfaces.openai.usage import EventReader
from support.registry import publish, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("chat/completions", CHAT, "model", "`model` is missing"),
    ("chat/completions", {"model": 7}, "model", "`model` is missing"),
    ("chat/completions", {"model": "story", "stream": "yes", **CHAT}, "stream", "neither true nor false"),
    ("chat/completions", {"model": "story"}, "messages", "`messages` is missing"),
    ("completions", {"model": "story", "prompt": 7}, "prompt", "`prompt` is missing"),
    ("completions", {"model": "story", "prompt": ["a", "b"]}, "prompt", "answers with one text"),
    ("chat/completions", {"model": "story", "n": 2, **CHAT}, "n", "`n` is not taken by story 1.0"),
    ("chat/completions", {"model": "story", "logprobs": True, **CHAT}, "logprobs", "answers with one text"),
    ("chat/completions", {"model": "story", "tools": [{}], "stream": True, **CHAT}, "tools", "one text"),
    ("chat/completions", {"model": "intent", **CHAT}, "model", "intent 1.0 does not answer /chat/completions"),
    ("responses", {"model": "story", "input": "x"}, "model", "only a model server that speaks OpenAI's API"),
    ("embeddings", {"model": "intent"}, "input", "neither a text nor a list"),
    ("embeddings", {"model": "intent", "input": [[1, 2]]}, "input", "token ids are not taken"),
    ("embeddings", {"model": "intent", "input": ["a", ""]}, "input", "not empty"),
    ("embeddings", {"model": "intent", "input": ["\ud800"]}, "input", "not valid Unicode"),
    ("embeddings", {"model": "intent", "input": ["a"] * 1025}, "input", "1024 at most"),
    ("embeddings", {"model": "intent", "input": "a", "dimensions": 8}, "dimensions", "'dimensions' is not taken"),
    ("embeddings", {"model": "intent", "input": "a", "\ud800": 8}, "\ud800", "is not taken"),
    ("embeddings", {"model": "intent", "input": "a", "encoding_format": "hex"}, "encoding_format", "base64"),
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ANSWERED = {OUTCOME: Outcome.ANSWERED}


def pieces(*sent: bytes, kind: str, go: asyncio.Event | None = None, then: str = "end") -> Behaviour:
    """Answer in pieces, the second of them when told to go; then end, break off, or say no more."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={**ANSWERED, "content-type": kind})
        await answer.prepare(request)
        for number, piece in enumerate(sent):
            if number == 1 and go is not None:
                await go.wait()
            await answer.write(piece)
        if then == "hang":
            await asyncio.Event().wait()
        if then == "break":
            assert request.transport is not None
            request.transport.close()
        return answer

    return behave


def whole(document: Any, status: int = 200, **headers: str) -> Behaviour:
    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=status, headers={**ANSWERED, **headers})

    return behave


def vectors(*rows: Any) -> Behaviour:
    """Answer each row of an envelope with a JSON value."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        answers = [Answer(200, json.dumps(row).encode(), "json", "application/json") for row in rows]
        return web.Response(body=encode_answers(answers), headers={**ANSWERED, "content-type": ROWS_CONTENT_TYPE})

    return behave


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """`chat` of a server that speaks the API, `story` of a handler that streams text, `intent` of one that does not."""
    scratch = tmp_path_factory.mktemp("openai")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish(registry, scratch, "chat", backend="http")
    publish(registry, scratch, "chat", "2.0", backend="http", label="STG")
    publish(registry, scratch, "story", serving={"streaming": True})
    publish(registry, scratch, "intent")
    return registry


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pods() -> AsyncIterator[tuple[FakePod, FakePod]]:
    started = FakePod("a", backend="http"), FakePod("b")
    for each in started:
        await each.start()
    yield started
    for each in started:
        await each.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(pods: tuple[FakePod, FakePod], registry: Registry) -> AsyncIterator[Running]:
    async with running(*pods, registry=registry) as gateway:
        await ready(gateway)
        yield gateway


@pytest.fixture
def pod(pods: tuple[FakePod, FakePod]) -> FakePod:
    return renewed(pods[0])


@pytest.fixture
def handlers(pods: tuple[FakePod, FakePod]) -> FakePod:
    return renewed(pods[1])


def renewed(pod: FakePod) -> FakePod:
    """Return a pod that has forgotten the requests of other tests."""
    pod.requests.clear()
    pod.cancelled = 0
    return pod


async def ask(gateway: Running, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    sent = {"content-type": "application/json", **(headers or {})}
    return await gateway.client.post(f"/openai/v1/{path}", content=json.dumps(body), headers=sent)


def data_of(text: str) -> list[Any]:
    """Return the data of events."""
    events = [event for event in text.split("\n\n") if event]
    return [json.loads(each) if each != "[DONE]" else each for each in (e.removeprefix("data: ") for e in events)]


async def test_a_server_that_speaks_the_api_gets_the_body_and_answers(gateway: Running, pod: FakePod) -> None:
    """The body goes on untouched with its path; `model` of the answer is what was asked for, and tokens count once."""
    pod.behave = whole({"id": "1", "model": "tiny", "usage": USAGE, "choices": []})
    asked = [("chat", "1.0"), ("chat/STG", "2.0"), ("chat/2.0", "2.0"), ("run-chat-2.0", "2.0")]
    for path, (model, version) in zip(
        ("chat/completions", "completions", "embeddings", "responses"), asked, strict=True
    ):
        body = {"model": model, "temperature": 0.5, **CHAT}
        answer = await ask(gateway, path, **body)
        assert (answer.status_code, answer.json()) == (200, {"id": "1", "model": model, "usage": USAGE, "choices": []})
        assert answer.headers["x-model-version"] == version
        seen = pod.requests[-1]
        assert seen.path == f"/predict/chat/{version}"
        assert json.loads(seen.body) == body
        assert seen.headers["x-marway-url-path"] == f"openai/v1/{path}"
        assert "x-marway-stream" not in seen.headers
    for kind, count in (("prompt", 9), ("completion", 6)):
        labels = f'kind="{kind}",model="chat",version="2.0"'
        assert await gateway.metric(f"marway_gateway_openai_tokens_total{{{labels}}}") == count


async def test_events_of_a_server_pass_as_they_come(gateway: Running, pod: FakePod) -> None:
    """Each event is there before the next is made, with the caller's `model`; the last one's tokens are counted."""
    go, labels = asyncio.Event(), 'kind="completion",model="chat",version="1.0"'
    before = await gateway.metric(f"marway_gateway_openai_tokens_total{{{labels}}}")
    first = b'data: {"model":"tiny","choices":[{"delta":{"content":"a"}}]}\n\n'
    last = b'data: {"model":"tiny","choices":[],"usage":%b}\n\ndata: [DONE]\n\n' % json.dumps(USAGE).encode()
    pod.behave = pieces(first, last[:20], last[20:], kind="text/event-stream; charset=utf-8", go=go)
    body = {"model": "chat/PROD", "stream": True, **CHAT}
    async with gateway.client.stream("POST", "/openai/v1/chat/completions", json=body) as answer:
        chunks = answer.aiter_text()
        got = await anext(chunks)
        assert not go.is_set()
        go.set()
        got += "".join([chunk async for chunk in chunks])
    assert answer.headers["content-type"] == "text/event-stream"
    events = data_of(got)
    assert [each["model"] for each in events[:-1]] == ["chat/PROD"] * 2
    assert events[-1] == "[DONE]"
    assert pod.requests[0].headers["x-marway-stream"] == "1"
    assert await gateway.metric(f"marway_gateway_openai_tokens_total{{{labels}}}") - before == 2


async def test_streams_are_counted_where_the_gateway_is_to(pod: FakePod, registry: Registry) -> None:
    """With `openai_count_streams` servers are asked to count; only callers who asked as well see the event."""
    count = json.dumps({"model": "tiny", "choices": [], "usage": USAGE}).encode()
    first = {"model": "chat", "choices": [{}], "usage": None}
    sent = b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\n" % (json.dumps(first).encode(), count)
    pod.behave = pieces(sent, kind="text/event-stream")
    options = {"include_usage": True}
    async with running(pod, registry=registry, openai_count_streams=True) as gateway:
        answer = await ask(gateway, "completions", model="chat", prompt="x", stream=True, stream_options={"a": 1})
        assert data_of(answer.text) == [first, "[DONE]"]
        assert json.loads(pod.requests[0].body)["stream_options"] == {"a": 1, **options}
        answer = await ask(gateway, "completions", model="chat", prompt="x", stream=True, stream_options=options)
        assert len(data_of(answer.text)) == 3
        await ask(gateway, "responses", model="chat", input="x", stream=True)
        assert "stream_options" not in json.loads(pod.requests[-1].body)
        labels = 'kind="prompt",model="chat",version="1.0"'
        assert await gateway.metric(f"marway_gateway_openai_tokens_total{{{labels}}}") == 9


async def test_a_client_that_leaves_ends_the_pods_work(gateway: Running, pod: FakePod) -> None:
    """When the caller goes away within a stream, the pod is told."""
    pod.behave = pieces(b'data: {"model":"tiny"}\n\n', kind="text/event-stream", then="hang")
    body = {"model": "chat", "stream": True, **CHAT}
    async with gateway.client.stream("POST", "/openai/v1/chat/completions", json=body) as answer:
        await anext(answer.aiter_raw())
    await until(lambda: pod.cancelled == 1)


async def test_a_stream_that_breaks_ends_with_an_error(gateway: Running, pod: FakePod) -> None:
    """The last event is an error, and no `[DONE]` follows."""
    pod.behave = pieces(b'data: {"model":"tiny"}\n\n', kind="text/event-stream", then="break")
    answer = await ask(gateway, "chat/completions", model="chat", stream=True, **CHAT)
    events = data_of(answer.text)
    assert events[0] == {"model": "chat"}
    assert events[1]["error"].items() >= {"type": "server_error", "code": "unavailable"}.items()
    assert len(events) == 2


async def test_a_handlers_text_becomes_a_chat_completion(gateway: Running, handlers: FakePod) -> None:
    """The handler gets the body as JSON, with the model's name and the path that TorchServe's own looks for."""
    handlers.behave = pieces(b"Once ", "ü".encode()[:1], "ü".encode()[1:], kind="text/plain")
    headers = {"x-request-id": "asked-7"}
    answer = await ask(gateway, "chat/completions", headers, model="story/PROD", max_tokens=5, **CHAT)
    document = answer.json()
    assert document.items() >= {"id": "chatcmpl-asked-7", "object": "chat.completion", "model": "story/PROD"}.items()
    message = {"role": "assistant", "content": "Once ü"}
    assert document["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert "usage" not in document
    (seen,) = handlers.requests
    assert json.loads(seen.body) == {"model": "story", "max_tokens": 5, **CHAT}
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["x-marway-url-path"] == "v1/chat/completions"


async def test_a_handlers_pieces_become_chunks(gateway: Running, handlers: FakePod) -> None:
    """Each piece is an event before the next is made; the role comes first, the end and `[DONE]` last."""
    go = asyncio.Event()
    handlers.behave = pieces(b"Once ", b"upon", kind="text/plain; charset=utf-8", go=go)
    body = {"model": "story", "stream": True, **CHAT}
    got = ""
    async with gateway.client.stream("POST", "/openai/v1/chat/completions", json=body) as answer:
        async for chunk in answer.aiter_text():
            got += chunk
            if "Once" in got:
                go.set()
    *events, done = data_of(got)
    assert done == "[DONE]"
    assert {each["object"] for each in events} == {"chat.completion.chunk"}
    assert len({each["id"] for each in events}) == 1
    deltas = [each["choices"][0]["delta"] for each in events]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Once "}, {"content": "upon"}, {}]
    assert [each["choices"][0]["finish_reason"] for each in events] == [None, None, None, "stop"]


async def test_a_handlers_text_becomes_a_completion(gateway: Running, handlers: FakePod) -> None:
    """A prompt is a text for the handler, however it came; the answer comes whole or as events."""
    handlers.behave = pieces(b" upon", b" a time", kind="text/plain")
    answer = await ask(gateway, "completions", model="story", prompt="Once")
    assert (answer.json()["object"], answer.json()["choices"][0]["text"]) == ("text_completion", " upon a time")
    assert json.loads(handlers.requests[0].body) == {"model": "story", "prompt": "Once"}
    *events, done = data_of((await ask(gateway, "completions", model="story", prompt=["Once"], stream=True)).text)
    assert json.loads(handlers.requests[1].body)["prompt"] == "Once"
    assert [each["choices"][0]["text"] for each in events] == [" upon", " a time", ""]
    assert (events[0]["object"], done) == ("text_completion", "[DONE]")


async def test_a_handler_that_speaks_the_api_is_not_wrapped(gateway: Running, handlers: FakePod) -> None:
    """TorchServe's handler for vLLM answers completions and events itself: they go on, several choices among them."""
    handlers.behave = whole({"object": "chat.completion", "model": "story", "choices": [{}, {}], "usage": USAGE})
    answer = await ask(gateway, "chat/completions", model="story/PROD", n=2, **CHAT)
    assert (answer.json()["model"], answer.json()["choices"]) == ("story/PROD", [{}, {}])
    handlers.behave = pieces(b'data: {"model":"story"}\n\n', kind="text/event-stream")
    answer = await ask(gateway, "chat/completions", model="story/PROD", stream=True, **CHAT)
    assert data_of(answer.text) == [{"model": "story/PROD"}]
    handlers.behave = whole({"label": "set_alarm"})
    answer = await ask(gateway, "chat/completions", model="story", **CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_error")
    assert "no completion" in answer.json()["error"]["message"]


async def test_embeddings_of_a_handler(gateway: Running, handlers: FakePod) -> None:
    """Many inputs are the rows of one request, and their vectors come as numbers or as float32 in base64."""
    handlers.behave = vectors([0.5, -1], {"embedding": [2.0, 3]})
    answer = await ask(gateway, "embeddings", model="intent/PROD", input=["wake me", "Zürich"])
    assert answer.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1]},
            {"object": "embedding", "index": 1, "embedding": [2.0, 3]},
        ],
        "model": "intent/PROD",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    (seen,) = handlers.requests
    rows = decode_rows(seen.body)
    assert [row.parts[0].value for row in rows] == [b"wake me", "Zürich".encode()]
    assert {row.parts[0].content_type for row in rows} == {"text/plain; charset=utf-8"}
    handlers.behave = vectors([[0.5, 0.1]])
    answer = await ask(gateway, "embeddings", model="intent", input="one", encoding_format="base64", user="u1")
    packed = base64.b64decode(answer.json()["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == pytest.approx((0.5, 0.1))


async def test_what_is_no_vector(gateway: Running, handlers: FakePod) -> None:
    """A handler that answers with something else is told apart by name."""
    for value in ({"label": "x"}, [], [True], ["a"], [float("nan")], [[1], [2]], "text"):
        handlers.behave = vectors(value)
        answer = await ask(gateway, "embeddings", model="intent", input="x")
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error"), value
        assert "input 0: the handler's answer is no embedding" in answer.json()["error"]["message"]


async def test_what_cannot_be_is_refused_by_name(gateway: Running, handlers: FakePod) -> None:
    """A 400 names the parameter, in the form of which clients make `BadRequestError`."""
    handlers.behave = pieces(b"Once", kind="text/plain")
    for path, body, param, words in REFUSED:
        answer = await ask(gateway, path, **body)
        error = answer.json()["error"]
        assert answer.status_code == 400, error
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "invalid_request")
        assert words in error["message"]


async def test_an_unknown_model_is_not_found(gateway: Running) -> None:
    """Whatever of it is unknown, clients raise `NotFoundError` with the code that they know."""
    for model in ("chta", "chat/9", "chat/XYZ", "meta/Llama-3/8B", "in tent", "chat/"):
        answer = await ask(gateway, "chat/completions", model=model, **CHAT)
        error = answer.json()["error"]
        assert answer.status_code == 404
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
        shown = await gateway.client.get(f"/openai/v1/models/{model}")
        assert shown.json()["error"]["code"] == "model_not_found"


async def test_errors_of_a_server_and_of_pods(gateway: Running, pod: FakePod) -> None:
    """One in OpenAI's form goes on as it is, all others are brought into it, with their status."""
    theirs = {"error": {"message": "too long", "type": "x", "param": None, "code": "y"}}
    cases: list[tuple[Behaviour, int, dict[str, str]]] = [
        (whole(theirs, 400), 400, {"code": "y"}),
        (whole({"detail": "no such adapter"}, 422), 422, {"message": "no such adapter", "code": "model_error"}),
        (whole({"error": "busy"}, 429), 429, {"message": "busy", "type": "rate_limit_error"}),
        (fail(ModelError("KeyError: 'x'", status=500), Outcome.MODEL_ERROR), 500, {"type": "server_error"}),
        (busy, 503, {"type": "server_error", "code": "no_pod_available"}),
    ]
    for behave, status, fields in cases:
        pod.behave = behave
        for stream in (False, True):
            answer = await ask(gateway, "chat/completions", model="chat", stream=stream, **CHAT)
            assert answer.status_code == status
            assert answer.json()["error"].items() >= fields.items()
            assert answer.headers["content-type"] == "application/json"


async def test_other_errors_have_the_form_too(gateway: Running) -> None:
    """No such path, no JSON, a body too large, a deadline that passed."""
    nothing = await gateway.client.post("/openai/v1/audio/speech", json={})
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "not_found")
    no_json = await gateway.client.post("/openai/v1/chat/completions", content=b"{")
    assert (no_json.status_code, no_json.json()["error"]["type"]) == (400, "invalid_request_error")
    empty = await gateway.client.post("/openai/v1/chat/completions")
    assert empty.status_code == 400
    method = await gateway.client.get("/openai/v1/chat/completions")
    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_a_token_is_the_api_key(pod: FakePod, registry: Registry, tmp_path: Path) -> None:
    """Where the gateway wants tokens, a client's `api_key` is one; without it there is a 401 that it understands."""
    tokens = tmp_path / "tokens"
    tokens.write_text("app: s3cret\n")
    tokens.chmod(0o600)
    pod.behave = whole({"model": "tiny"})
    async with running(pod, registry=registry, predict_tokens_file=tokens) as gateway:
        refused = await ask(gateway, "chat/completions", model="chat", **CHAT)
        key = {"authorization": "Bearer s3cret"}
        taken = await ask(gateway, "chat/completions", key, model="chat", **CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert taken.status_code == 200
    assert "authorization" not in pod.requests[0].headers


async def test_the_deadline_holds(gateway: Running, pod: FakePod) -> None:
    """A stream that does not end in time ends with an error that says so."""
    pod.behave = pieces(b'data: {"model":"tiny"}\n\n', kind="text/event-stream", then="hang")
    headers = {"x-request-timeout-ms": "1000"}
    answer = await ask(gateway, "chat/completions", headers, model="chat", stream=True, **CHAT)
    assert data_of(answer.text)[-1]["error"]["code"] == "deadline_exceeded"


async def test_models(gateway: Running, registry: Registry) -> None:
    """Names and labels that can be asked for are listed, page by page; one shows what it means now."""
    listed = (await gateway.client.get("/openai/v1/models")).json()
    assert [each["id"] for each in listed["data"]] == ["chat", "chat/STG", "intent", "story"]
    assert (listed["object"], listed["has_more"]) == ("list", False)
    first = listed["data"][0]
    assert (first["object"], first["owned_by"], first["version"]) == ("model", "test", "1.0")
    assert first["created"] == int(registry.record("chat", "1.0").created_at.timestamp())
    page = (await gateway.client.get("/openai/v1/models", params={"limit": 1, "after": "chat"})).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (["intent"], True)
    for model, version in (("chat/STG", "2.0"), ("chat%2F2.0", "2.0"), ("run-chat-1.0", "1.0")):
        shown = (await gateway.client.get(f"/openai/v1/models/{model}")).json()
        assert shown.get("version") == version, shown
    wrong = await gateway.client.get("/openai/v1/models", params={"limit": 0})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_request")


async def test_events_with_what_json_has_not() -> None:
    """Minus infinity among a server's probabilities, and half a character, go on as they came."""
    text = b'data: {"model":"mine","logprob":-Infinity,"content":"\\ud83d"}\n'
    assert EventReader("mine").passed(text.replace(b"mine", b"tiny")) == text


async def test_events_cut_anywhere() -> None:
    """Wherever a server's events are cut, the same lines come out, comments and ends of all kinds among them."""
    text = b': ping\r\n\r\nevent: x\ndata: {"model":"tiny","response":{"model":"tiny","usage":{"input_tokens":1,'
    text += b'"output_tokens":4}}}\n\ndata: {"a":1}\n\ndata: [DONE]\r\n\r\n'
    for cut in range(len(text)):
        reader = EventReader("mine")
        got = reader.passed(text[:cut]) + reader.passed(text[cut:]) + reader.rest()
        wanted = b'"model":"mine","response":{"model":"mine"'
        assert got == text.replace(b'"model":"tiny","response":{"model":"tiny"', wanted)
        assert reader.done
        assert reader.tokens == (1, 4)
