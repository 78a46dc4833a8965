"""A predictor asked over gRPC: the one of examples/grpc_predictor, with models that say one thing."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from marway_archiver import publish_bundle
from support.kinds.kind import TAKES_S, Kind
from support.servers import Server

__all__ = ["GrpcPredictorKind"]

_PREDICTOR = Path(__file__).parents[3] / "examples" / "grpc_predictor" / "predictor.py"
_MODEL = """\
import time
import torch

class IntentClassifier(torch.nn.Module):
    def __init__(self, labels):
        super().__init__()

    def encode(self, texts):
        return (torch.ones(len(texts), 1),)

    def forward(self, rows):
        time.sleep({takes_s})
        return rows
"""


class Predictor(Server):
    """Its model directory is `directory/models`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.grpc = f"127.0.0.1:{self.ports[0]}"
        self.repository = directory / "models"
        self.repository.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, str(_PREDICTOR), "--models", str(self.repository), "--address", self.grpc]

    def serves(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.ports[0])) == 0


class GrpcPredictorKind(Kind):
    """Its model directory is shared with the sidecar."""

    name = backend = "grpc-predictor"

    def server(self, directory: Path) -> Server:
        return Predictor(directory)

    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        (scratch / "model.py").write_text(_MODEL.replace("{takes_s}", str(TAKES_S)))
        (scratch / "labels.json").write_text(json.dumps([f"{version} hello"]))
        torch.save({}, scratch / "weights.pt")
        publish_bundle(model_name=model, version=version, backend=self.backend, registry=registry, directory=scratch)

    def settings(self, server: Server) -> Mapping[str, object]:
        return {"grpc_predictor_address": server.grpc, "grpc_predictor_models": server.repository}
