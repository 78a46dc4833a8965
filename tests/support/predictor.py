"""A predictor as the book has them, in this process: it loads a model of its directory with its first prediction.

A model is a file `model.txt`. It does what the contract suite has a document say, and else says what it was asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from marway_sidecar.backends.grpc_predictor import GrpcPredictorBackend
from marway_sidecar.backends.grpc_predictor.proto.predictor_pb2 import PredictorPredictRequest, PredictorPredictResponse
from marway_sidecar.backends.grpc_predictor.proto.predictor_pb2_grpc import (
    PredictorServicer,
    add_PredictorServicer_to_server,
)
from marway_sidecar.settings import SidecarSettings

__all__ = ["Predictor", "predictor_backend", "predictor_running"]


class Predictor(PredictorServicer):
    """The predictor; `stop` and `start` again are its restart.

    Attributes:
        port: Where it answers.
        serving: What its health service says; None for a predictor that has none.
        asked: Documents that it was asked, by run.
        left: How many callers left before they had their answer.
    """

    def __init__(self, models: Path) -> None:
        self.models = models
        self.port = 0
        self.serving: bool | None = True
        self.asked: list[tuple[str, str]] = []
        self.left = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1_000_000)])
        add_PredictorServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated
        if self.serving is not None:
            check = grpc.unary_unary_rpc_method_handler(self._check)
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),)
            )
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def _check(self, request: bytes, context: Any) -> bytes:
        return b"\x08\x01" if self.serving else b"\x08\x02"

    async def PredictorPredict(self, request: PredictorPredictRequest, context: Any) -> PredictorPredictResponse:  # noqa: N802  # generated
        self.asked.append((request.runId, request.document))
        model = self.models / request.runId / "model.txt"
        if not model.exists():
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.runId}, model file not found")
        verb, _, rest = request.document.partition(" ")
        if verb == "fail":
            raise ValueError("on purpose")
        if verb == "refuse":
            await context.abort(getattr(grpc.StatusCode, rest), "on purpose")
        if verb == "wait":
            await self._there(Path(rest), model, context)
        if verb == "pieces":
            await self._there(Path(rest), model, context)
        said = {"wait": "waited", "pieces": "onetwo", "say": rest, "large": "x" * 2_000_000}.get(verb)
        return PredictorPredictResponse(response=said or json.dumps({"asked": request.document}))

    async def _there(self, gate: Path, model: Path, context: Any) -> None:
        try:
            while not gate.exists():
                if not model.exists():
                    await context.abort(grpc.StatusCode.NOT_FOUND, "it was removed")
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.left += 1
            raise


@asynccontextmanager
async def predictor_running(models: Path) -> AsyncIterator[Predictor]:
    """Run one for the length of a block."""
    predictor = Predictor(models)
    await predictor.start()
    try:
        yield predictor
    finally:
        await predictor.stop()


def predictor_backend(predictor: Predictor, **settings: object) -> GrpcPredictorBackend:
    """Return the backend for it, with these settings."""
    given = {"grpc_predictor_address": predictor.address, "grpc_predictor_models": predictor.models}
    return GrpcPredictorBackend(SidecarSettings(flags={"backend": "grpc-predictor", **given, **settings}))  # type: ignore[call-arg]  # its sources
