"""Settings about a predictor that is asked over gRPC."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from marway.settings import ComponentSettings

__all__ = ["GrpcPredictorSettings"]

_MIB = 1024 * 1024


class GrpcPredictorSettings(ComponentSettings):
    """Where it is, and how it is asked."""

    grpc_predictor_address: str | None = None
    """gRPC address of the predictor, such as 127.0.0.1:51001."""

    grpc_predictor_models: Path | None = None
    """The predictor's model directory, shared with it and used by this pod alone: the files of each loaded version lie
    in it below the version's id, which is the `runId` of its predictions."""

    grpc_predictor_manage: bool = True
    """Whether its models are Marway's to put there and to remove. If not, it is only asked: a version is the run that
    its bundle names (`marway pack --server-model RUN`), if the predictor has that."""

    grpc_predictor_max_models: int | None = Field(None, ge=1)
    """Most versions in that directory at once; the least recently used goes first. Unset: as many as there is memory
    for (`memory_budget_bytes`)."""

    grpc_predictor_first_document: str = "hello"
    """Text that a version is asked when it is loaded, as predictors load a model with its first prediction: one that
    fails is refused. Empty: none is sent, and the first caller waits."""

    grpc_predictor_concurrency: int = Field(10, ge=1)
    """Predictions that the predictor is sent at once for one version: as many as the book's has threads."""

    grpc_predictor_max_message_bytes: int = Field(4 * _MIB, ge=1)
    """Largest document and answer, bytes: what gRPC servers take unless told otherwise."""

    grpc_predictor_probe_interval_s: float = Field(1.0, gt=0)
    """How often the predictor is asked whether it is well, seconds: that soon a dead one is noticed."""

    grpc_predictor_probe_timeout_s: float = Field(5.0, gt=0)
    """How long it may take to answer before it counts as down, seconds."""
