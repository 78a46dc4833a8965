"""What users are told when they err, over real TorchServe: with curl, over gRPC and by the command."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import pytest

from marway_archiver import publish
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from support.cli import marway, refused
from support.up import Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MODELS = Path(__file__).parent / "models"


def test_json_without_its_content_type_is_told_so(up: Up, client: httpx.Client) -> None:
    """`curl -d '{…}'` to a handler that wants JSON gets the handler's error, and the line that was missing."""
    publish(
        model_name="wants-json",
        version="1.0",
        handler=str(MODELS / "wants_json.py"),
        registry=up.registry,
        label="PROD",
    )
    for path, member in (("/predict/wants-json", "detail"), ("/predictions/wants-json", "message")):
        command = ["curl", "--silent", "--noproxy", "*", "-d", '{"numbers": [1, 2]}', f"{up.gateway}{path}"]
        said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert "TypeError" in said[member]
        assert said[member].endswith("if the model wants JSON, send -H 'content-type: application/json'")
        mended = subprocess.run(
            [*command, "-H", "content-type: application/json"], capture_output=True, check=True
        ).stdout
        assert json.loads(mended) == {"sum": 3}


def test_what_was_meant_is_said_over_rest_grpc_and_by_the_command(up: Up, client: httpx.Client) -> None:
    """A slip in a label, a version or a model is answered with the name that it is close to."""
    label = "model 'intent' has no version 'prod': it has 1.0; did you mean label 'PROD'?"
    assert client.post("/predict/intent/prod", content=b"x").json()["detail"] == label
    assert client.post("/predictions/intent/prod", content=b"x").json()["message"] == label
    assert "did you mean version '1.0'?" in client.post("/predict/intent/v1", content=b"x").text
    assert "did you mean model 'intent'?" in client.post("/predict/itnent", content=b"x").text
    with grpc.insecure_channel(up.ready["grpc"]) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predict(prediction_pb2.PredictRequest(runId="itnent", document="x"), timeout=60)
    assert "did you mean model 'intent'?" in raised.value.details()
    admin = up.ready["admin"]
    for said, *command in (
        (label, "predict", "intent/prod", "x", "--gateway", up.gateway),
        (label, "show", "intent/prod", "--registry", up.registry),
        (label, "load", "intent/prod", "--gateway", admin),
        ("did you mean 'PROD'?", "release", "intent", "1.0", "--label", "prod", "--gateway", admin),
        ("did you mean version '1.0'?", "release", "intent", "1", "--gateway", admin),
        ("did you mean model 'intent'?", "rollback", "itnent", "--gateway", admin),
        ("did you mean 'pod-0'?", "drain", "pod-O", "--gateway", admin),
        ("did you mean 'pods'?", "serving", "intent", "--set", "pod=2", "--gateway", admin),
    ):
        assert refused(marway(*command)).endswith(said)


def test_the_command_shows_no_bytes_on_a_terminal(up: Up, tmp_path: Path) -> None:
    """An answer that is no text goes to a pipe and a file as it is; a terminal is told its size and how to save it."""
    publish(
        model_name="picture",
        version="1.0",
        handler=str(MODELS / "picture.py"),
        registry=up.registry,
        label="PROD",
    )
    command = [sys.executable, "-m", "marway", "predict", "picture", "x", "--gateway", up.gateway]
    content = b"\x89PNG\r\n\x1a\n\x00\x1b[31m"
    assert subprocess.run(command, capture_output=True, check=True, timeout=120).stdout == content
    assert subprocess.run([*command, "-o", str(tmp_path / "7.png")], capture_output=True, check=True).stdout == b""
    assert (tmp_path / "7.png").read_bytes() == content
    document = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True).stdout)
    assert base64.b64decode(document["answer"]["b64"]) == content
    ours, theirs = pty.openpty()
    try:
        subprocess.run(command, stdout=theirs, check=True, timeout=120)
        shown = os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    size = f"{len(content)} bytes, image/png"
    assert shown.decode().strip() == f"the answer is no text ({size}): save it with --output FILE or > FILE"
    refused(marway(*command[3:], "-o", str(tmp_path / "no" / "such")))
    assert "leave --json away" in marway(*command[3:], "-o", "x", "--json").stderr
