"""A client for TorchServe's gRPC inference API, generated from the .proto that TorchServe ships in its own jar."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import google.rpc
from grpc_tools import protoc

__all__ = ["TorchServeClient", "generate"]

_WELL_KNOWN = Path(str(importlib.util.find_spec("grpc_tools").submodule_search_locations[0])) / "_proto"  # type: ignore[union-attr,index]


class TorchServeClient:
    """What protoc made of TorchServe's .proto.

    Attributes:
        messages: `inference_pb2`.
        services: `inference_pb2_grpc`.
    """

    def __init__(self, messages: ModuleType, services: ModuleType) -> None:
        self.messages: Any = messages
        self.services: Any = services

    def request(self, model: str, version: str = "", /, **inputs: bytes) -> Any:
        return self.messages.PredictionsRequest(model_name=model, model_version=version, input=inputs)

    def stub(self, channel: Any) -> Any:
        return self.services.InferenceAPIsServiceStub(channel)


def generate(directory: Path) -> TorchServeClient:
    """Generate the client into an empty directory and import it from there."""
    package = importlib.util.find_spec("ts")
    assert package is not None
    assert package.origin is not None
    with zipfile.ZipFile(Path(package.origin).parent / "frontend" / "model-server.jar") as jar:
        (directory / "inference.proto").write_bytes(jar.read("inference.proto"))
    common = Path(next(iter(google.rpc.__path__))).parents[1]
    arguments = [f"-I{path}" for path in (directory, common, _WELL_KNOWN)]
    arguments += [f"--python_out={directory}", f"--grpc_python_out={directory}"]
    assert protoc.main(["protoc", *arguments, "inference.proto"]) == 0
    sys.path.insert(0, str(directory))
    try:
        names = ("inference_pb2", "inference_pb2_grpc")
        return TorchServeClient(*(importlib.import_module(name) for name in names))
    finally:
        sys.path.remove(str(directory))
        for name in names:
            sys.modules.pop(name, None)
