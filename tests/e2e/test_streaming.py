"""The shipped streaming handler in real TorchServe, through the gateway, on every surface that streams."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import torch

from marway_archiver import publish
from support.torchserve_client import generate
from support.trained import load_module
from support.up import Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

MODEL = """
import os
import time

import torch


class Gated(torch.nn.Module):
    \"\"\"Tells short sentences from long ones, and waits at one that is `GATE FILE` until somebody made the file.\"\"\"

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)

    def encode(self, texts):
        for text in texts:
            if text.startswith("GATE "):
                deadline = time.monotonic() + 60
                while not os.path.exists(text.removeprefix("GATE ")):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        return (torch.tensor([[float(len(text))] for text in texts]),)

    def forward(self, lengths):
        return self.layer(lengths)
"""


@pytest.fixture(scope="module")
def streaming(up: Up, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A published version of the shipped handler; its name."""
    files = tmp_path_factory.mktemp("gated")
    (files / "model.py").write_text(MODEL)
    torch.save(load_module(files / "model.py", "gated").Gated().state_dict(), files / "weights.pt")
    (files / "labels.json").write_text('["short", "long"]')
    handler = importlib.util.find_spec("marway_handlers.streaming_text")
    assert handler is not None
    assert handler.origin is not None
    publish(
        model_name="gated",
        version="1.0",
        handler=handler.origin,
        model_file=files / "model.py",
        serialized_file=files / "weights.pt",
        extra_files=[files / "labels.json"],
        registry=up.registry,
        label="PROD",
        record={"serving": {"streaming": True}},
        examples=["One sentence. Another one."],
    )
    return "gated"


def check(first: str, rest: str, gate: Path) -> None:
    """The first piece is the first sentence's line, the rest those of the gated sentence and of the whole text."""
    assert json.loads(first)["sentence"] == "The first."
    gated, whole = [json.loads(line) for line in rest.splitlines()]
    assert gated["sentence"] == f"GATE {gate}"
    assert whole["sentences"] == 2


@pytest.mark.parametrize("path", ["/predict", "/predictions"])
def test_the_first_chunk_comes_before_the_last_is_computed(
    client: httpx.Client, streaming: str, tmp_path: Path, path: str
) -> None:
    """The caller holds the first sentence's line while the model still waits for what the caller does next."""
    gate = tmp_path / "gate"
    with client.stream(
        "POST", f"{path}/{streaming}", content=f"The first. GATE {gate}", headers={"content-type": "text/plain"}
    ) as answer:
        chunks = answer.iter_text()
        first = next(chunks)
        gate.touch()
        check(first, "".join(chunks), gate)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["transfer-encoding"] == "chunked"


def test_the_same_as_server_sent_events(client: httpx.Client, streaming: str, tmp_path: Path) -> None:
    """Each line is an event, and the stream says that it is at its end."""
    gate = tmp_path / "gate"
    headers = {"content-type": "text/plain", "accept": "text/event-stream"}
    with client.stream("POST", f"/predict/{streaming}", content=f"The first. GATE {gate}", headers=headers) as answer:
        chunks = answer.iter_text()
        first = next(chunks)
        gate.touch()
        events = [event.splitlines() for event in (first + "".join(chunks)).split("\n\n")]
    assert answer.headers["content-type"] == "text/event-stream"
    assert first.startswith("data: {")
    data = [event[0].removeprefix("data: ") for event in events[:3]]
    check(data[0], "\n".join(data[1:]), gate)
    assert events[3:] == [["event: end", "data: "], []]


def test_the_same_over_torchserves_grpc(
    up: Up, streaming: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A client made from TorchServe's own .proto gets each line as a message, and all at once where it asks so."""
    gate = tmp_path / "gate"
    theirs: Any = generate(tmp_path_factory.mktemp("client"))
    with grpc.insecure_channel(up.ready["grpc"]) as channel:
        stub = theirs.stub(channel)
        request = theirs.request(streaming, data=f"The first. GATE {gate}".encode())
        messages = stub.StreamPredictions(request, timeout=60)
        first = next(messages).prediction.decode()
        gate.touch()
        check(first, "".join(message.prediction.decode() for message in messages), gate)
        whole = stub.Predictions(request, timeout=60).prediction.decode()
        check(whole.splitlines()[0], "\n".join(whole.splitlines()[1:]), gate)
        with pytest.raises(grpc.RpcError, match="empty") as caught:
            stub.Predictions(theirs.request(streaming, data=b" "), timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_torchserves_grpc_predicts(up: Up, tmp_path: Path) -> None:
    """Predictions over TorchServe's gRPC: a raw body, a version or label, named inputs, and its errors."""
    theirs: Any = generate(tmp_path)
    with grpc.insecure_channel(up.ready["grpc"]) as channel:
        stub = theirs.stub(channel)
        for version in ("", "1.0", "PROD"):
            answer = stub.Predictions(theirs.request("intent", version, data=b"tell me a joke"), timeout=60)
            assert json.loads(answer.prediction)["label"] == "tell_joke"
        answer = stub.Predictions(theirs.request("probe", left=b"1", right=b"\xc3\xbc"), timeout=60)
        assert json.loads(answer.prediction) == {"left": "1", "right": "ü"}
        with pytest.raises(grpc.RpcError, match="ModelNotFoundException") as caught:
            stub.Predictions(theirs.request("nobody", data=b"x"), timeout=60)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
