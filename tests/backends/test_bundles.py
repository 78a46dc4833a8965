"""A directory of a real server's, packed as a bundle with stated answers, on a pod beside that server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from marway_archiver import Example, pack_bundle
from support.servers import Server, running_mlserver, running_triton

pytestmark = pytest.mark.extended  # real servers; tests/archiver/bundles has what is told without them

TRITON = {
    "config.pbtxt": 'name: "any"\nbackend: "python"\nmax_batch_size: 0\n'
    'input { name: "x" data_type: TYPE_FP32 dims: -1 }\noutput { name: "y" data_type: TYPE_FP32 dims: -1 }\n',
    "1/model.py": """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            y = pb_utils.get_input_tensor_by_name(request, "x").as_numpy() * 2
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return answers
""",
}
MLSERVER = {
    "model-settings.json": '{"name": "any", "implementation": "doubling.Doubling", '
    '"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], '
    '"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]}',
    "doubling.py": """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Doubling(MLModel):
    async def predict(self, payload):
        y = NumpyCodec.decode_input(payload.inputs[0]) * 2
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
""",
}
REQUEST = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2.0]}]}


@pytest.fixture(params=["mlserver", "triton"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    run: Callable[[Path], AbstractContextManager[Server]]
    run = running_triton if request.param == "triton" else running_mlserver
    (tmp_path / "server").mkdir()
    with run(tmp_path / "server") as server:
        yield server


def packed(server: Server, directory: Path, *, data: list[float]) -> Path:
    """Return a bundle for a server, whose golden examples say that it gives ``data``."""
    triton = "Triton" in type(server).__name__
    for name, text in (TRITON if triton else MLSERVER).items():
        (directory / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / "model" / name).write_text(text)
    output = {"name": "y", "datatype": "FP32", "shape": [2] if triton else [2, 1], "data": data}
    return pack_bundle(
        model_name="doubles",
        version="1.0",
        backend="open-inference",
        directory=directory / "model",
        export_path=directory,
        examples=[Example(REQUEST, {"outputs": [output]})],
        golden_file=directory / "doubles.golden.json",
        force=True,
    ).path


def verified(bundle: Path, server: Server) -> subprocess.CompletedProcess[str]:
    variables = {
        "MARWAY_SIDECAR_OPEN_INFERENCE_URL": server.url,
        "MARWAY_SIDECAR_OPEN_INFERENCE_REPOSITORY": str(server.repository),
    }
    return subprocess.run(
        [sys.executable, "-m", "marway", "verify", str(bundle), "--engine", "open-inference"],
        capture_output=True, text=True, timeout=240, env=os.environ | variables,
    )  # fmt: skip


def test_a_directory_of_the_servers_becomes_a_version(server: Server, tmp_path: Path) -> None:
    """It loads under Marway's name and gives the stated answers; another answer is a difference, with exit code 1."""
    done = verified(packed(server, tmp_path, data=[3.0, 4.00001]), server)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "verified, compared with the stated answers" in done.stdout
    done = verified(packed(server, tmp_path, data=[3.0, 5.0]), server)
    assert done.returncode == 1, done.stderr + done.stdout
    assert "data[1]: 5.0 was expected, 4.0 came" in " ".join(done.stdout.split())
