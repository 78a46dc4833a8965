"""OpenAI's own client against handlers on the native engine: what docs/openai.md shows, streams, errors, embeddings."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from marway_archiver import publish
from support.gateways import metric
from support.trained import untrained
from support.up import Up, wait_until

# tests/gateway/surfaces/test_openai.py has all forms and errors, with pods in place of engines.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/openai.md").read_text()
TEXTS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 3)

    def encode(self, texts):
        return (torch.tensor([[float(len(text))] for text in texts]),)

    def forward(self, lengths):
        return self.layer(lengths)
"""
SLOW = """
import os
import time

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    gate = data[0]["body"]["prompt"]
    send_intermediate_predict_response(["first "], context.request_ids, "Intermediate", 200, context)
    while not os.path.exists(gate):
        time.sleep(0.01)
    return ["last"]
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The native engine, with what docs/openai.md has its reader publish."""
    home = tmp_path_factory.mktemp("openai") / ".marway"
    with Up(home, "--engine", "native") as running:
        for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                run(["bash", "-c", line.removeprefix("$ ")], running)
        yield running


def run(command: list[str], up: Up) -> str:
    """Run what the page shows, in a directory that looks like a checkout in which `up` runs; return its output."""
    directory = up.home.parent
    if not (directory / "docs").exists():
        (directory / "docs").symlink_to(ROOT / "docs")
    ports = {"8000": up.gateway, "8001": up.ready["admin"]}
    for port, url in ports.items():
        command = [word.replace(f"127.0.0.1:{port}", url.removeprefix("http://")) for word in command]
    # Not in the path of this Python, which may lie below /tmp as well.
    command = [re.sub(r"(?<= )/tmp(?=/|\s|$)", str(directory), word, flags=re.MULTILINE) for word in command]
    command = [word.replace("curl ", "curl --fail-with-body ") for word in command]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MARWAY_")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, shlex.join(command) + done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def client(up: Up) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.gateway}/openai/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


def test_the_page_shows_what_happens(up: Up) -> None:
    """The script of the page prints what the parrot was told."""
    (script,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert run([sys.executable, "-c", script], up) == "hello you there"


def test_completions_of_a_handler(client: openai.OpenAI) -> None:
    """Chat and completions come whole and in pieces, as the client's own types, with the model that was asked for."""
    messages: list[Any] = [{"role": "user", "content": "wake me up"}]
    chat = client.chat.completions.create(model="parrot/PROD", messages=messages)
    assert (chat.model, chat.choices[0].message.content) == ("parrot/PROD", "wake me up")
    assert (chat.choices[0].message.role, chat.choices[0].finish_reason, chat.usage) == ("assistant", "stop", None)
    chunks = list(client.chat.completions.create(model="parrot", messages=messages, stream=True, max_tokens=2))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "wake ", "me", None]
    assert chunks[-1].choices[0].finish_reason == "stop"
    text = client.completions.create(model="parrot/1.0", prompt="one two")
    assert (text.object, text.choices[0].text) == ("text_completion", "one two")
    pieces = [chunk.choices[0].text for chunk in client.completions.create(model="parrot", prompt="a b", stream=True)]
    assert pieces == ["a ", "b", ""]


def test_what_fails_is_the_clients_exception(client: openai.OpenAI) -> None:
    """A model that is not there, what the handler cannot do, and what it fails on."""
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.NotFoundError, match="there is no model 'parot'") as missing:
        client.chat.completions.create(model="parot", messages=messages)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="answers with one text") as refused:
        client.chat.completions.create(model="parrot", messages=messages, n=2)
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="backend http"):
        client.responses.create(model="parrot", input="hello")
    failing: list[Any] = [{"role": "user"}]
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError, match="KeyError"):
            client.chat.completions.create(model="parrot", messages=failing, stream=stream)


def test_models(client: openai.OpenAI) -> None:
    """The list has what can be asked for, and one shows its version, by name and label too."""
    assert "parrot" in [model.id for model in client.models.list()]
    assert client.models.retrieve("parrot/PROD").to_dict()["version"] == "1.0"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("parrot/STG")


def test_a_client_that_leaves_a_stream(up: Up, client: openai.OpenAI, tmp_path: Path) -> None:
    """The first piece is there before the handler makes the last; whoever leaves then is counted, and others go on."""
    (tmp_path / "slow.py").write_text(SLOW)
    publish(
        model_name="slow", version="1.0", handler=tmp_path / "slow.py", registry=up.registry, label="PROD", force=True,
        record={"serving": {"streaming": True}},
    )  # fmt: skip
    gate = tmp_path / "gate"
    with client.completions.create(model="slow", prompt=str(gate), stream=True) as stream:
        assert next(stream).choices[0].text == "first "
    name = "marway_gateway_request_duration_seconds_count"
    wait_until(lambda: metric(up.gateway, name, model="slow", outcome="cancelled") == 1, timeout_s=30, what="its end")
    gate.touch()
    assert client.completions.create(model="slow", prompt=str(gate)).choices[0].text == "first last"


def test_embeddings_of_a_handler(up: Up, client: openai.OpenAI, tmp_path: Path) -> None:
    """The shipped handler's vectors, as base64, which the client asks for by itself, and as numbers."""
    model_file, weights = untrained(tmp_path, TEXTS)
    found = importlib.util.find_spec("marway_handlers.embedding")
    assert found is not None
    assert found.origin is not None
    publish(
        model_name="vectors", version="1.0", handler=found.origin, model_file=str(model_file), registry=up.registry,
        serialized_file=str(weights), examples=["wake me up", "play jazz"], label="PROD", force=True,
    )  # fmt: skip
    inputs = ["a", "some longer text", "a"]
    packed = client.embeddings.create(model="vectors/PROD", input=inputs)
    plain = client.embeddings.create(model="vectors/PROD", input=inputs, encoding_format="float")
    assert packed.model == "vectors/PROD"
    assert [each.index for each in packed.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-5)
        assert list(one.embedding) == pytest.approx(other.embedding, abs=1e-6)
    assert packed.data[0].embedding == packed.data[2].embedding != packed.data[1].embedding
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="vectors", input="a", dimensions=2)
    with pytest.raises(openai.InternalServerError, match="TypeError"):
        client.embeddings.create(model="parrot", input="a")
