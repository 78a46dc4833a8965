"""What becomes of a prediction that fails: what its caller is told, what a gateway is, and what is logged."""

from __future__ import annotations

import logging
from typing import Final

from starlette.responses import Response

from marway.errors import (
    ArchiveCorrupt,
    DeadlineExceeded,
    Draining,
    InvalidInput,
    LoadFailed,
    MarwayError,
    ModelError,
    ModelLoading,
    NotFound,
    Overloaded,
    RuntimeDown,
    Unavailable,
    clip,
)
from marway.redaction import redaction_of
from marway.serving import ServingSettings
from marway.wire import headers, problems
from marway.wire.headers import Outcome
from marway.wire.model_run import ModelRun
from marway_http.channel import HeaderBlock
from marway_sidecar.api.answers import header_lines
from marway_sidecar.api.call import Call
from marway_sidecar.backends.base import WorkerDied

__all__ = ["log_failure", "outcome_of", "problem_answer", "problem_response"]

logger = logging.getLogger(__name__)

_DETAIL_MAX: Final = 1000
_CALLERS_MATTER: Final = frozenset({Outcome.REFUSED, Outcome.NOT_ACCEPTED})
"""Outcomes that say nothing of this pod or its models; the gateway's access log has them all."""


def outcome_of(error: MarwayError, *, accepted: bool) -> str:
    """Return what a gateway is told about a failed request, which was ``accepted`` if the model server was given it."""
    if isinstance(error, ModelError):
        return Outcome.MODEL_ERROR
    if isinstance(error, (InvalidInput, NotFound)):
        return Outcome.REFUSED
    if isinstance(error, (RuntimeDown, Draining)):
        # A pod that stops with the request in hand is lost to it as one whose server went away.
        return Outcome.RUNTIME_DOWN if accepted else Outcome.NOT_ACCEPTED
    if isinstance(error, (LoadFailed, ArchiveCorrupt, DeadlineExceeded, ModelLoading)):
        return Outcome.FAILED
    if isinstance(error, WorkerDied):
        return Outcome.WORKER_DIED
    if isinstance(error, Overloaded) or (isinstance(error, Unavailable) and not accepted):
        return Outcome.NOT_ACCEPTED  # a full queue in the model server: nothing was run
    return Outcome.FAILED


def log_failure(
    call: Call, error: MarwayError, *, outcome: str, serving: ServingSettings | None, rows: int | None = None
) -> None:
    """Log a prediction that failed here, with the id by which its caller and the handler's log know it.

    What was refused, or may go to another pod, is not logged. ``rows`` is how many failed so, where not all did. What
    the version's ``serving`` settings redact is left out, with words of an error that may quote what was sent.
    """
    if outcome in _CALLERS_MATTER:
        return
    fields = {
        "request_id": call.ids.request_id,
        "group_id": call.ids.group_id,
        "model": error.model,
        "version": error.version,
        "error": error.code,
        "outcome": outcome,
        "rows": rows,
    }
    message = clip(error.message, _DETAIL_MAX)
    if serving is not None and serving.observe_redact:
        redaction = redaction_of(serving.observe_redact)
        if not redaction.keeps_errors:
            message = "what the model's code said is left out, as observe_redact names fields of inputs"
        for header, name in ((headers.REQUEST_ID, "request_id"), (headers.REQUEST_GROUP_ID, "group_id")):
            if header in redaction.headers:
                fields[name] = None
    logger.error("prediction failed: %s", message, extra={"fields": fields})


def problem_answer(
    error: MarwayError, *, request_id: str, outcome: str, run: ModelRun | None = None
) -> tuple[int, HeaderBlock, bytes]:
    """Return the status, the headers and the body of the problem document for an error.

    ``run`` is how the model server ran the request, where it was given it.
    """
    status, sent, body = _problem(error, request_id, outcome)
    if run is not None:
        sent[headers.RUN] = run.header()
    own = {"content-type": problems.CONTENT_TYPE, "content-length": str(len(body)), **sent}
    return status, HeaderBlock(header_lines(own), len(own)), body


def problem_response(error: MarwayError, *, request_id: str | None = None, outcome: str | None = None) -> Response:
    """Return the problem document for ``error``, as Starlette sends it."""
    status, sent, body = _problem(error, request_id, outcome)
    return Response(body, status, sent, media_type=problems.CONTENT_TYPE)


def _problem(error: MarwayError, request_id: str | None, outcome: str | None) -> tuple[int, dict[str, str], bytes]:
    problem, sent = problems.problem_of(error, request_id=request_id)
    if request_id is not None:
        sent[headers.REQUEST_ID] = request_id
    if outcome is not None:
        sent[headers.OUTCOME] = outcome
    return problem.status, sent, problem.body()
