"""Triton and MLServer as the contract suite sees them: models that do what a row's text says, in bundles."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from marway.settings import load_settings
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.settings import SidecarSettings
from support.bundles import write_bundle
from support.servers import Server

TRITON_CONFIG: Final = """
name: "packed as"  # and served as another
backend: "python"
max_batch_size: 0
input [{ name: "text" data_type: TYPE_STRING dims: [1] }]
output [{ name: "said" data_type: TYPE_STRING dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
DECOUPLED: Final = "model_transaction_policy { decoupled: true }\n"
_TRITON: Final = """
import os
import time

import numpy as np
import triton_python_backend_utils as pb


def wait_for(path, request):
    deadline = time.monotonic() + 6
    while not os.path.exists(path):
        if request.is_cancelled() or time.monotonic() > deadline:
            raise RuntimeError("nobody waits any more")
        time.sleep(0.01)


def said(*texts):
    return [pb.InferenceResponse([pb.Tensor("said", np.array([text.encode()], dtype=object))]) for text in texts]


class TritonPythonModel:
    def execute(self, requests):
        return [answer for request in requests for answer in self.one(request)]

    def one(self, request):
        text = pb.get_input_tensor_by_name(request, "text").as_numpy()[0].decode()
        verb, _, rest = text.partition(" ")
        if verb == "fail":
            raise ValueError("on purpose")
        if verb == "die":
            os._exit(3)
        if verb in ("pieces", "wait"):
            wait_for(rest, request)
        return said({"pieces": "onetwo", "wait": "waited"}.get(verb, rest))
"""
_TRITON_PIECES: Final = f"""
{_TRITON}

class TritonPythonModel(TritonPythonModel):
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            rest = pb.get_input_tensor_by_name(request, "text").as_numpy()[0].decode().partition(" ")[2]
            one, two = said("one", "two")
            try:
                sender.send(one)
                wait_for(rest, request)
                sender.send(two)
            except Exception:
                pass
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
_MLSERVER: Final = """
import asyncio
import os

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse


async def wait_for(path):
    while not os.path.exists(path):
        await asyncio.sleep(0.01)


class Contract(MLModel):
    def said(self, text):
        output = StringCodec.encode_output("said", [text])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

    async def predict(self, payload):
        verb, _, rest = StringCodec.decode_input(payload.inputs[0])[0].partition(" ")
        if verb == "fail":
            raise ValueError("on purpose")
        if verb in ("pieces", "wait"):
            await wait_for(rest)
        return self.said({"pieces": "onetwo", "wait": "waited"}.get(verb, rest))

    async def predict_stream(self, payloads):
        async for payload in payloads:
            rest = StringCodec.decode_input(payload.inputs[0])[0].partition(" ")[2]
            yield self.said("one")
            await wait_for(rest)
            yield self.said("two")
"""


class OpenInferenceSubject:
    """A server, asked over REST alone, or over gRPC too."""

    workers_die = streams = True

    def __init__(self, server: Server, directory: Path, *, over: str) -> None:
        self.server = server
        self.over = over
        self._directory = directory
        self._numbers = itertools.count()
        addresses = {"rest": {"url": server.url}, "grpc": {"grpc": server.grpc}}
        addresses["both"] = addresses["rest"] | addresses["grpc"]
        given: dict[str, Any] = {f"open_inference_{name}": value for name, value in addresses[over].items()}
        self.backend = open_backend(
            load_settings(
                SidecarSettings, backend="open-inference", open_inference_repository=server.repository, **given
            )
        )

    def bundle(self, name: str, files: Mapping[str, str], version: str = "1.0", **facts: str) -> ServedModel:
        """Return a version with these files."""
        number = next(self._numbers)
        path = write_bundle(
            self._directory / f"{name}-{number}.bundle",
            "open-inference",
            {place: text.encode() for place, text in sorted(files.items())},
            name=name,
            version=version,
            **facts,
        )
        return ServedModel(
            f"mv_{name}{number}", name, version, path, workers=1, load_timeout_s=60.0, predict_timeout_s=30.0
        )

    async def restart(self) -> None:
        self.server.kill()
        self.server.start()


class TritonSubject(OpenInferenceSubject):
    def __init__(self, server: Server, directory: Path, *, over: str) -> None:
        super().__init__(server, directory, over=over)
        self.streams = over != "rest"

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        pieces = streaming and self.streams
        code = "raise RuntimeError('broken')" if broken else _TRITON_PIECES if pieces else _TRITON
        files = {"config.pbtxt": TRITON_CONFIG + (DECOUPLED if pieces else ""), "1/model.py": code}
        return _streaming(self.bundle(name, files), streaming)


class MLServerSubject(OpenInferenceSubject):
    workers_die = False  # models run in the server's own process, or in workers that all models share

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        code = "raise RuntimeError('broken')" if broken else _MLSERVER
        settings = {"name": "packed", "implementation": f"contract_{next(self._numbers)}.Contract"}
        module = settings["implementation"].partition(".")[0]
        files = {"model-settings.json": json.dumps(settings), f"{module}.py": code}
        return _streaming(self.bundle(name, files), streaming)


def _streaming(model: ServedModel, streaming: bool) -> ServedModel:
    return replace(model, streaming=streaming)
