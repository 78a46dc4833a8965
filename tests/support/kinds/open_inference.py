"""Servers of the Open Inference Protocol: Triton and MLServer, each with a model of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from marway_archiver import publish_bundle
from support.kinds.kind import TAKES_S, Kind
from support.servers import Server
from support.servers.mlserver import MLServer
from support.servers.triton import Triton

__all__ = ["MLServerKind", "TritonKind"]

_CONFIG = """\
name: "said"
backend: "python"
max_batch_size: 8
input [{ name: "text", data_type: TYPE_STRING, dims: [1] }]
output [{ name: "said", data_type: TYPE_STRING, dims: [1] }]
"""
_TRITON = """\
import time
import numpy
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep({takes_s})
        answers = []
        for request in requests:
            text = utils.get_input_tensor_by_name(request, "text").as_numpy()
            said = numpy.array([b"{version} " + each for each in text.ravel()], dtype=object).reshape(text.shape)
            answers.append(utils.InferenceResponse([utils.Tensor("said", said)]))
        return answers
"""
_MLSERVER = """\
import asyncio
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse

class Says(MLModel):
    async def predict(self, payload):
        await asyncio.sleep({takes_s})
        said = ["{version} " + text for text in StringCodec.decode_input(payload.inputs[0])]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("said", said)])
"""
_SETTINGS = {
    "name": "said",
    "implementation": "its_model.Says",
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [{"name": "said", "datatype": "BYTES", "shape": [-1]}],
}


class TritonKind(Kind):
    """Its Python backend."""

    name = "triton"
    backend = "open-inference"

    def server(self, directory: Path) -> Server:
        return Triton(directory, "explicit", ())

    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        self.write(scratch, version)
        publish_bundle(
            model_name=model, version=version, backend=self.backend, registry=registry, directory=scratch
        )  # fmt: skip

    @staticmethod
    def source(text: str, version: str) -> str:
        """Return a model's source for a version."""
        return text.replace("{version}", version).replace("{takes_s}", str(TAKES_S))

    def write(self, directory: Path, version: str) -> None:
        """Write the model's directory as the server wants it."""
        (directory / "1").mkdir()
        (directory / "config.pbtxt").write_text(_CONFIG)
        (directory / "1" / "model.py").write_text(self.source(_TRITON, version))

    def settings(self, server: Server) -> Mapping[str, object]:
        return {"open_inference_url": server.url, "open_inference_repository": server.repository}


class MLServerKind(TritonKind):
    """A runtime of the model's own."""

    name = "mlserver"

    def server(self, directory: Path) -> Server:
        return MLServer(directory, {"parallel_workers": 0})

    def write(self, directory: Path, version: str) -> None:
        (directory / "model-settings.json").write_text(json.dumps(_SETTINGS))
        (directory / "its_model.py").write_text(self.source(_MLSERVER, version))
