"""A predictor asked over gRPC: the one of examples/grpc_predictor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from support.kinds.kind import Kind
from support.servers import Server

__all__ = ["GrpcPredictorKind"]


class GrpcPredictorKind(Kind):
    """Its model directory is shared with the sidecar."""

    name = backend = "grpc-predictor"

    def server(self, directory: Path) -> Server:
        raise NotImplementedError

    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        raise NotImplementedError

    def settings(self, server: Server) -> Mapping[str, object]:
        return {"grpc_predictor_address": server.grpc, "grpc_predictor_models": server.repository}
