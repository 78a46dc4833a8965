"""NVIDIA's own client asks a real Triton directly and through Marway: the answers are equal."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from marway_archiver import publish_bundle
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.every import usual
from support.servers import Server, environment, running_triton
from support.triton_models import MODELS, write_model
from support.up import Up

# A minute of real servers; tests/gateway/surfaces/test_v2_passing.py and tests/http/tensors are the fast ones.
pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(600)]

CLIENTS = Path(__file__).with_name("triton_clients.py")
_REQUEST_ID = re.compile(r"\[request id: .*?\] ")


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Triton that has the models under their own names; Marway's pod puts the same beside them, under others."""
    directory = tmp_path_factory.mktemp("triton")
    for name, (config, methods) in MODELS.items():
        write_model(directory / "models", name, config, methods)
    with running_triton(directory, arguments=[f"--load-model={name}" for name in MODELS]) as server:
        yield server


@pytest.fixture(scope="module", params=usual("grpc", more=["rest"]))
def over(request: pytest.FixtureRequest) -> str:
    """What the pod asks Triton over."""
    return str(request.param)


@pytest.fixture(scope="module")
def up(over: str, triton: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Marway with one pod before it."""
    scratch = tmp_path_factory.mktemp("up")
    named = {"url": triton.url, "repository": str(triton.repository)}
    if over == "grpc":
        named["grpc"] = triton.grpc
    env = {f"MARWAY_SIDECAR_OPEN_INFERENCE_{name.upper()}": value for name, value in named.items()}
    with Up(scratch / "home", "--engine", "open-inference", env=env) as running:
        for name in MODELS:
            publish_bundle(
                model_name=name,
                version="1.0",
                backend="open-inference",
                directory=triton.repository / name,
                registry=running.registry,
                label="PROD",
                force=True,
            )
        yield running


def asked(http: str, grpc: str, over: str) -> dict[str, Any]:
    """Return what the client gets; Triton's decoupled models are served over gRPC alone."""
    command = [str(environment("triton") / "python"), str(CLIENTS), http.removeprefix("http://"), grpc]
    command.append("decoupled" if over == "grpc" else "plain")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def differences(through: Any, direct: Any, where: str = "") -> Iterator[str]:
    """Yield where answers differ; of errors the status is equal, and Marway's words have Triton's within them."""
    if isinstance(direct, dict) and isinstance(through, dict) and through.keys() == direct.keys():
        for name in direct:
            yield from differences(through[name], direct[name], f"{where} / {name}")
    elif isinstance(direct, list) and isinstance(through, list) and len(through) == len(direct):
        for index, (one, other) in enumerate(zip(through, direct, strict=True)):
            yield from differences(one, other, f"{where} / {index}")
    elif isinstance(direct, str) and " " in direct:
        if _REQUEST_ID.sub("", direct)[:300] not in str(through).replace(" 1.0'", "'"):
            yield f"{where}: {through} is not {direct}"
    elif through != direct:
        yield f"{where}: {through} is not {direct}"


def test_tritonclient_gets_what_triton_gives(up: Up, triton: Server, over: str) -> None:
    """Every datatype, batch, parameter, class, sequence, stream and error over HTTP and gRPC is what Triton gives."""
    through, direct = asked(up.gateway, up.ready["grpc"], over), asked(triton.url, triton.grpc, over)
    assert list(differences(through, direct)) == []


def test_decoupled_models_over_both(up: Up, over: str) -> None:
    """A decoupled model answers a line each over REST, as Triton does not; `ModelInfer` names the call that has all."""
    tensor = {"name": "n", "datatype": "INT32", "shape": [1], "data": [2]}
    said = httpx.post(f"{up.gateway}/v2/models/pieces/infer", json={"inputs": [tensor]}, timeout=60)
    if over == "rest":
        assert (said.status_code, "open_inference_grpc" in said.json()["error"]) == (500, True)
        return
    assert [json.loads(line)["outputs"][0]["data"] for line in said.text.splitlines()] == [[0], [1]]
    message = pb.ModelInferRequest(model_name="pieces")
    message.inputs.add(name="n", datatype="INT32", shape=[1]).contents.int_contents.append(2)
    with grpc.insecure_channel(up.ready["grpc"]) as channel, pytest.raises(grpc.RpcError) as caught:
        open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=60)
    assert (caught.value.code(), "ModelStreamInfer" in caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, True)
