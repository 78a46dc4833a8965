"""What TorchServe's errors mean, by code and text."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError, ModelError, Overloaded, RuntimeDown
from marway.wire.headers import Outcome
from marway.wire.problems import status_of
from marway_sidecar.api.failures import outcome_of
from marway_sidecar.backends.base import NotLoaded, NotSent, ServedModel, WorkerDied
from marway_sidecar.backends.torchserve.classify import classify, classify_rest

MODEL = ServedModel("mv_X", "some", "1.0", Path("x.mar"), 1, 1.0, 1.0)
Code = grpc.StatusCode


RAISED = "\norg.pytorch.serve.http.InternalServerException"
NO_WORKER = 'Model "m" Version 1.0 has no worker to serve inference request.'


@pytest.mark.parametrize(
    ("code", "text", "kind", "outcome"),
    [
        (Code.INTERNAL, NO_WORKER, Overloaded, Outcome.NOT_ACCEPTED),
        (Code.INTERNAL, "org.pytorch.serve.archive.model.ModelNotFoundException", NotLoaded, Outcome.FAILED),
        (Code.INTERNAL, "Worker died." + RAISED, WorkerDied, Outcome.WORKER_DIED),
        (Code.RESOURCE_EXHAUSTED, "Worker died." + RAISED, WorkerDied, Outcome.WORKER_DIED),
        (Code.RESOURCE_EXHAUSTED, "", WorkerDied, Outcome.WORKER_DIED),
        (Code.RESOURCE_EXHAUSTED, "refused" + RAISED, ModelError, Outcome.MODEL_ERROR),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", ModelError, Outcome.MODEL_ERROR),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (9 vs. 4)", BodyTooLarge, Outcome.REFUSED),
        (Code.INTERNAL, "Out of resources" + RAISED, ModelError, Outcome.MODEL_ERROR),
        (Code.UNAVAILABLE, "Prediction failed" + RAISED, ModelError, Outcome.MODEL_ERROR),
        (Code.UNAVAILABLE, "refused with 503" + RAISED, ModelError, Outcome.MODEL_ERROR),
        (Code.FAILED_PRECONDITION, "refused" + RAISED, ModelError, Outcome.MODEL_ERROR),
        (Code.NOT_FOUND, "refused" + RAISED, ModelError, Outcome.MODEL_ERROR),
        (
            Code.UNAVAILABLE,
            "failed to connect to all addresses; last error: Connection refused",
            NotSent,
            Outcome.RUNTIME_DOWN,
        ),
        (Code.UNAVAILABLE, "Socket closed", RuntimeDown, Outcome.RUNTIME_DOWN),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded, Outcome.FAILED),
        (Code.CANCELLED, "", BodyTooLarge, Outcome.REFUSED),
        (Code.INVALID_ARGUMENT, "bad", ModelError, Outcome.MODEL_ERROR),
        (Code.PERMISSION_DENIED, "Token Authorization failed", MarwayError, Outcome.FAILED),
        (Code.UNKNOWN, "", MarwayError, Outcome.FAILED),
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


def rest(code: int, kind: str, message: str) -> bytes:
    return json.dumps({"code": code, "type": kind, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (503, rest(503, "ServiceUnavailableException", NO_WORKER), Overloaded, 429),
        (404, rest(404, "ModelNotFoundException", "Model not found: m"), NotLoaded, 503),
        (404, rest(404, "ModelVersionNotFoundException", "no version"), NotLoaded, 503),
        (500, rest(500, "InternalServerException", "Worker died."), WorkerDied, 503),
        (507, rest(507, "InternalServerException", "Worker died."), WorkerDied, 503),
        (507, rest(507, "InternalServerException", "Out of resources"), ModelError, 507),
        (503, rest(503, "InternalServerException", "Prediction failed"), ModelError, 500),
        (422, rest(422, "InternalServerException", "refused"), ModelError, 422),
        (400, rest(400, "InvalidKeyException", "Token Authorization failed."), MarwayError, 500),
        (400, rest(400, "BadRequestException", "no"), ModelError, 400),
        (413, b"", BodyTooLarge, 413),
    ],
)
def test_each_rest_error_is_told_by_type_and_text(status: int, body: bytes, kind: type[MarwayError], said: int) -> None:
    """Each row of the REST column becomes its error, with the status that a caller gets."""
    error = classify_rest(status, body, MODEL)
    assert type(error) is kind
    assert (error.model, error.version) == ("some", "1.0")
    assert status_of(error) == said


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, rest(500, "InternalServerException", "Worker died.")),
        (418, b"a,b"),
        (422, b'{"code": 422, "message": "said by the handler"}'),
        (422, rest(422, "MyOwnException", "said by the handler")),
        (500, b"[]"),
        (500, b"5"),
    ],
)
def test_what_a_handler_says_is_its_answer(status: int, body: bytes) -> None:
    """A status and a body that are not TorchServe's own form of error are the handler's answer."""
    assert classify_rest(status, body, MODEL) is None
