"""The backend `http` with a real LitServe, by its own API and by OpenAI's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from support.bundles import write_bundle
from support.http_pod import http_pod, until_up
from support.registry import publish
from support.servers import running_litserve
from support.servers.litserve import LitServe

# Extended: tests/sidecar/backends/test_http_pod.py does the same with a server in its process.
pytestmark = [pytest.mark.extended, pytest.mark.e2e, pytest.mark.timeout(240)]

SERVER = """\
import sys
import litserve

class Upper(litserve.LitAPI):
    def setup(self, device):
        pass
    def predict(self, request):
        if request["text"] == "fail":
            raise ValueError("on purpose")
        return {"said": request["text"].upper()}

class Words(litserve.LitAPI):
    def setup(self, device):
        pass
    def predict(self, request):
        for word in request["text"].split():
            yield word
    def encode_response(self, answers):
        for answer in answers:
            yield "data: " + answer + "\\n\\n"

class Chat(litserve.LitAPI):
    def setup(self, device):
        pass
    def predict(self, prompt):
        yield "Hello "
        yield "there"

if __name__ == "__main__":
    apis = [
        Upper(api_path="/upper"),
        Words(api_path="/words", stream=True),
        Chat(spec=litserve.OpenAISpec()),
    ]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
"""


@pytest.fixture(scope="module")
def lit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LitServe]:
    directory = tmp_path_factory.mktemp("litserve")
    (directory / "server.py").write_text(SERVER)
    with running_litserve(directory) as server:
        yield server


def published(scratch: Path, *names: str) -> Registry:
    registry = Registry(DirectoryStore(scratch / "registry"))
    for name in names:
        data = write_bundle(scratch / f"{name}.bundle", "http", name=name).read_bytes()
        publish(registry, scratch, name, "1.0", data=data, backend="http", serving={"streaming": name == "words"})
    return registry


async def test_answers_streams_and_a_kill(lit: LitServe, tmp_path: Path) -> None:
    """Its answers and streams pass, a failure is the model's; killed and back it serves again by itself."""
    registry = published(tmp_path, "upper", "words")
    settings = {"http_predict": f"{lit.url}/{{model}}", "http_health": f"{lit.url}/health"}
    async with http_pod(registry, tmp_path, http_serves="upper/1.0,words/1.0", **settings) as client:
        answer = await client.post("/predict/upper/1.0", json={"text": "hello"})
        assert (answer.status_code, answer.json()) == (200, {"said": "HELLO"})
        failed = await client.post("/predict/upper/1.0", json={"text": "fail"})
        assert (failed.status_code, failed.headers["x-marway-outcome"]) == (500, "model_error")
        async with client.stream("POST", "/predict/words/1.0", json={"text": "one two"}) as streamed:
            assert "".join([piece async for piece in streamed.aiter_text()]) == "data: one\n\ndata: two\n\n"
        lit.kill()
        await until_up(client, up=False)
        assert (await client.post("/predict/upper/1.0", json={"text": "hello"})).status_code == 503
        await asyncio.to_thread(lit.start)
        await until_up(client)
        assert (await client.post("/predict/upper/1.0", json={"text": "back"})).json() == {"said": "BACK"}


async def test_openais_api(lit: LitServe, tmp_path: Path) -> None:
    """A chat is passed to the server's own name for the model, whole and as events."""
    registry = published(tmp_path, "chat")
    names = {"http_openai": f"{lit.url}/v1", "http_openai_model": "lit", "http_serves": "chat/1.0"}
    async with http_pod(registry, tmp_path, http_health=f"{lit.url}/health", **names) as client:
        sent = {"x-marway-url-path": "openai/v1/chat/completions"}
        chat = {"model": "chat/PROD", "messages": [{"role": "user", "content": "Hi"}]}
        answer = await client.post("/predict/chat/1.0", json=chat, headers=sent)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "Hello there"
        assert answer.json()["model"] == "lit"
        streamed = await client.post(
            "/predict/chat/1.0", json={**chat, "stream": True}, headers={**sent, "x-marway-stream": "1"}
        )
        assert streamed.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        said = [json.loads(event)["choices"][0]["delta"].get("content") for event in events[:-1]]
        assert "".join(word for word in said if word) == "Hello there"
