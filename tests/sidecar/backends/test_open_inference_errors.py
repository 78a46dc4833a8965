"""What errors of Open Inference servers mean, by status and text: each was seen with Triton 2.51 or MLServer 1.7."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from marway.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest, MarwayError, ModelError, Overloaded
from marway.wire.problems import status_of
from marway_sidecar.backends.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.backends.open_inference.classify import HTTP_OF, classify, reason_of

MODEL = ServedModel("mv_X", "iris", "1.0", Path("x.bundle"), 1, 1.0, 1.0)
RAISED = (
    "Failed to process the request(s) for model 'mv_X_0_0', message: ValueError: on purpose\n\nAt:\n"
    "  /models/mv_X/1/model.py(20): one\n"
)


@pytest.mark.parametrize(
    ("status", "text", "kind", "code"),
    [
        (404, "Request for unknown model: 'mv_X' is not found", NotLoaded, 503),
        (404, "Request for unknown model: 'mv_X' has no available versions", NotLoaded, 503),
        (404, "Model mv_X not found", NotLoaded, 503),
        (404, "Model mv_X with version 1.0 not found", NotLoaded, 503),
        (404, "Model mv_X with version  not found", NotLoaded, 503),
        (400, "Model mv_X is not ready yet.", NotLoaded, 503),
        (404, "there is no such customer", ModelError, 404),
        (503, "[request id: a] Exceeds maximum queue size", Overloaded, 429),
        (503, "Request timeout expired", DeadlineExceeded, 504),
        (504, "Deadline Exceeded", DeadlineExceeded, 504),
        (500, "Stub process 'mv_X_0_0' is not healthy.", WorkerDied, 503),
        (500, RAISED, ModelError, 500),
        (400, "bad arg", ModelError, 400),
        (500, "CUDA out of memory. Tried to allocate 2 GiB", ModelError, 507),
        (413, "Sent message larger than max (9 vs. 4)", BodyTooLarge, 413),
        (413, "Received message larger than max (9 vs. 4)", ModelError, 500),
        (400, "[request id: <id_unknown>] expected 2 inputs but got 1 inputs for model 'mv_X'.", InvalidRequest, 400),
        (400, "inference input 'x' data-type is 'INT32', but model 'mv_X' expects 'FP32'", InvalidRequest, 400),
        (400, "inference request batch-size must be <= 4 for 'mv_X'", InvalidRequest, 400),
        (400, "unexpected inference output 'nope' for model 'mv_X'", InvalidRequest, 400),
        (
            400,
            "[request id: q] input byte size mismatch for input 'x' for 'mv_X'",
            InvalidRequest,
            400,
        ),
        (400, "receiving FP16 data via JSON is not supported. Please use the binary", InvalidRequest, 400),
        (500, "failed to parse the request JSON buffer: Missing a name for object member. at 1", InvalidRequest, 400),
        (500, "Unable to parse 'inputs': attempt to access JSON non-array as array", InvalidRequest, 400),
        (422, "[{'loc': ['body', 'inputs']}]", InvalidRequest, 400),
        (501, "HTTP end point doesn't support models with decoupled transaction policy", ModelError, 501),
    ],
)
def test_an_error_is_told_by_status_and_text(status: int, text: str, kind: type[MarwayError], code: int) -> None:
    """Each error is the kind that it stands for, about the version, and never names the server's own name of it."""
    error = classify(status, text, MODEL, called="mv_X")
    assert type(error) is kind
    assert status_of(error) == code
    assert (error.model, error.version) == ("iris", "1.0")
    assert "mv_X" not in error.message
    assert "model.py" not in error.message


def test_what_a_model_raised_is_told_in_its_words() -> None:
    """The exception's own text comes through, without the places in the server's files."""
    assert classify(500, RAISED, MODEL, called="mv_X").message == "iris 1.0 failed: ValueError: on purpose"
    failed = "load failed for model 'mv_X': version 1 is at UNAVAILABLE state: Internal: no\n\nAt:\n  /a/b.py(1)\n;\n"
    assert reason_of(failed, "mv_X", "iris 1.0") == (
        "load failed for model 'iris 1.0': version 1 is at UNAVAILABLE state: Internal: no"
    )


def test_every_status_of_grpc_that_servers_give_has_its_own_of_http() -> None:
    """No status of gRPC but those that mean an error inside the server is left to count as one."""
    inside = {"OK", "UNKNOWN", "INTERNAL", "DATA_LOSS"}
    assert {code.name for code in grpc.StatusCode} - {code.name for code in HTTP_OF} == inside
