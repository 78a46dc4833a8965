"""OpenAI's own client through gateway and sidecar against the server of `transformers`, which has two tiny models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from marway_archiver import publish_bundle
from support.cli import marway
from support.gateways import metric
from support.servers.transformers import Transformers, tiny_model
from support.up import Up, wait_until

# tests/gateway/surfaces/test_openai.py has all forms and errors, tests/sidecar/backends/test_http_backend.py the way to
# the server, both with stand-ins.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), pytest.mark.extended]

MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
TOKENS = "marway_gateway_openai_tokens_total"
PAGE = (Path(__file__).parents[2] / "docs/openai.md").read_text()
SEEDS = {"1.0": 1, "2.0": 2}


class AnyModel(Transformers):
    """The server with no model of its own: it serves the directory that a request names."""

    def command(self) -> list[str]:
        return [word for word in super().command() if word != self.name]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyModel]:
    with AnyModel(tmp_path_factory.mktemp("transformers"), tiny_model(seed=1), ()) as running:
        yield running


@pytest.fixture(scope="module")
def up(server: AnyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A gateway and a pod whose sidecar asks that server, with both versions published and the first released."""
    home = tmp_path_factory.mktemp("up") / ".marway"
    assert "MARWAY_SIDECAR_HTTP_OPENAI=http://127.0.0.1:8080/v1 marway up --engine http" in PAGE
    with Up(home, "--engine", "http", env={"MARWAY_SIDECAR_HTTP_OPENAI": server.openai}) as running:
        (shown,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for line in shown.replace("/tmp", str(home.parent)).splitlines():
            command = line.replace("Qwen/Qwen3-0.6B", str(tiny_model(seed=1))).split()[1:]
            done = marway(*command, cwd=home.parent)
            assert done.returncode == 0, done.stderr
        publish_bundle(
            model_name="chat", version="2.0", backend="http", server_model=str(tiny_model(seed=2)),
            registry=running.registry,
        )  # fmt: skip
        yield running


@pytest.fixture
def client(up: Up) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.gateway}/openai/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture
def direct(server: AnyModel) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.openai, api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


def release(up: Up, *command: str) -> None:
    done = marway(*command, MARWAY_GATEWAY_ADMIN_URL=up.ready["admin"], MARWAY_REGISTRY=up.registry)
    assert done.returncode == 0, done.stderr


def said(client: openai.OpenAI, model: str, **more: Any) -> str | None:
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, **more)
    assert answer.model.removesuffix("@main") == model  # which the server itself puts behind a directory
    return answer.choices[0].message.content


def test_an_answer_is_the_servers(up: Up, client: openai.OpenAI, direct: openai.OpenAI) -> None:
    """A chat completion and a completion are what the server itself answers, usage too, and its tokens are counted."""
    before = metric(up.gateway, TOKENS, model="chat", version="1.0")
    name = str(tiny_model(seed=1))
    one = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=8)
    other = direct.chat.completions.create(model=name, messages=MESSAGES, max_tokens=8)
    assert (one.model, one.choices, one.usage) == ("chat", other.choices, other.usage)
    assert one.usage is not None
    assert one.usage.total_tokens > 8
    assert metric(up.gateway, TOKENS, model="chat", version="1.0") - before == one.usage.total_tokens
    text = client.completions.create(model="chat/1.0", prompt="once", max_tokens=8)
    assert text.choices == direct.completions.create(model=name, prompt="once", max_tokens=8).choices


def test_a_stream_is_the_servers(up: Up, client: openai.OpenAI, direct: openai.OpenAI) -> None:
    """Events carry the same pieces as the server's own, the model that was asked for, and tokens in the last one."""
    name = str(tiny_model(seed=1))
    before = metric(up.gateway, TOKENS, model="chat", version="1.0", kind="completion")

    def pieces(asked: openai.OpenAI, model: str) -> list[Any]:
        chunks = list(asked.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, stream=True))
        assert {chunk.model.removesuffix("@main") for chunk in chunks} == {model}
        return [(chunk.choices[0].delta.content, chunk.usage) for chunk in chunks if chunk.choices]

    assert pieces(client, "chat/PROD") == pieces(direct, name)
    # The server ends its streams with what it counted.
    assert metric(up.gateway, TOKENS, model="chat", version="1.0", kind="completion") - before == 8


def test_responses(client: openai.OpenAI, direct: openai.OpenAI) -> None:
    """The Responses API goes to the server, whole and as events, in which the response has the caller's model."""
    name = str(tiny_model(seed=1))
    asked: dict[str, Any] = {"input": "hello", "max_output_tokens": 8, "stream": False}  # else this server streams
    one, other = client.responses.create(model="chat", **asked), direct.responses.create(model=name, **asked)
    assert (one.model, one.output_text, one.usage) == ("chat", other.output_text, other.usage)
    asked["stream"] = True
    *events, last = client.responses.create(model="chat", **asked)
    *theirs, their_last = direct.responses.create(model=name, **asked)
    assert [event.type for event in events] == [event.type for event in theirs]
    assert (last.type, last.response.model) == ("response.completed", "chat")
    assert last.response.output_text == their_last.response.output_text


def test_a_release_and_a_roll_back(up: Up, client: openai.OpenAI, direct: openai.OpenAI) -> None:
    """A client that asks for the name follows the label there and back; one that asks for a version stays."""
    words = {version: said(direct, str(tiny_model(seed=seed))) for version, seed in SEEDS.items()}
    assert words["1.0"] != words["2.0"]
    assert said(client, "chat") == words["1.0"]
    release(up, "release", "chat", "2.0", "--label", "STG")
    wait_until(lambda: "chat/STG" in [model.id for model in client.models.list()], timeout_s=10, what="the label")
    assert (said(client, "chat/STG"), said(client, "chat")) == (words["2.0"], words["1.0"])
    release(up, "release", "chat", "2.0")
    wait_until(lambda: said(client, "chat") == words["2.0"], timeout_s=10, what="the release")
    assert said(client, "chat/1.0") == words["1.0"]
    release(up, "rollback", "chat")
    wait_until(lambda: said(client, "chat") == words["1.0"], timeout_s=10, what="the roll-back")
    assert client.models.retrieve("chat").to_dict()["version"] == "1.0"


def test_what_fails_is_the_clients_exception(client: openai.OpenAI) -> None:
    """A model that is not there, a parameter that the server does not know, a route that it has not."""
    with pytest.raises(openai.NotFoundError, match="there is no model 'chta'") as missing:
        said(client, "chta")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="has no version '9'"):
        said(client, "chat/9")
    with pytest.raises(openai.UnprocessableEntityError, match="flavour"):
        said(client, "chat", extra_body={"flavour": "salty"})
    with pytest.raises(openai.NotFoundError, match="Not Found"):
        client.embeddings.create(model="chat", input="hello")


def test_a_client_that_leaves_ends_the_servers_work(up: Up, client: openai.OpenAI) -> None:
    """Who closes a stream frees its place in the pod long before the server would have been done."""
    with client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=1900, stream=True) as stream:
        next(stream)
    name = "marway_gateway_request_duration_seconds_count"
    wait_until(lambda: metric(up.gateway, name, model="chat", outcome="cancelled") == 1, timeout_s=30, what="its end")
    (pod,) = up.ready["pods"]

    def in_flight() -> int:
        models = httpx.get(f"{pod['url']}/models", trust_env=False, timeout=30).json()
        return sum(int(model["requests_in_flight"]) for model in models)

    wait_until(lambda: not in_flight(), timeout_s=30, what="the server's work")
