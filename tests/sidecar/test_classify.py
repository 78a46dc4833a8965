"""What TorchServe's gRPC errors mean, by code and text."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError, ModelError, Overloaded, RuntimeDown
from marway.wire.headers import Outcome
from marway_sidecar.adapters.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.adapters.torchserve.classify import classify
from marway_sidecar.predict import outcome_of

MODEL = ServedModel("mv_X", "some", "1.0", Path("x.mar"), 1, 1.0, 1.0)
Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "text", "kind", "outcome"),
    [
        (
            Code.INTERNAL,
            'Model "m" Version 1.0 has no worker to serve inference request.',
            Overloaded,
            Outcome.NOT_ACCEPTED,
        ),
        (Code.INTERNAL, "org.pytorch.serve.archive.model.ModelNotFoundException", NotLoaded, Outcome.FAILED),
        (Code.INTERNAL, "Worker died.", WorkerDied, Outcome.WORKER_DIED),
        (Code.RESOURCE_EXHAUSTED, "", WorkerDied, Outcome.WORKER_DIED),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", ModelError, Outcome.MODEL_ERROR),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (9 vs. 4)", BodyTooLarge, Outcome.REFUSED),
        (Code.UNAVAILABLE, "Prediction failed", ModelError, Outcome.MODEL_ERROR),
        (Code.UNAVAILABLE, "failed to connect to all addresses", RuntimeDown, Outcome.RUNTIME_DOWN),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded, Outcome.FAILED),
        (Code.CANCELLED, "", BodyTooLarge, Outcome.REFUSED),
        (Code.INVALID_ARGUMENT, "bad", ModelError, Outcome.MODEL_ERROR),
        (Code.PERMISSION_DENIED, "Token Authentication failed", MarwayError, Outcome.FAILED),
    ],
)
def test_each_error_is_told_by_code_and_text(
    code: grpc.StatusCode, text: str, kind: type[MarwayError], outcome: str
) -> None:
    """Each row of the table in docs/torchserve.md becomes its error, and the outcome that a gateway acts on."""
    error = classify(AioRpcError(code, Metadata(), Metadata(), details=text), MODEL)
    assert type(error) is kind
    assert (error.model, error.version) == ("some", "1.0")
    assert outcome_of(error, accepted=True) == outcome
