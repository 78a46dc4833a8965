"""Errors over HTTP: the one table from error to status, and RFC 9457 problem documents.

Gateway and sidecar speak the same problems, so that a gateway can pass a sidecar's on unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from marway import errors
from marway.errors import MarwayError, ModelError, ReleaseRefused
from marway.wire.comparison import Comparison
from marway.wire.headers import RETRY_AFTER

__all__ = ["CONTENT_TYPE", "STATUS", "Problem", "RefusedRelease", "parse_problem", "problem_of", "status_of"]

CONTENT_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[MarwayError], int]] = {
    errors.AnswersDiffer: 409,
    errors.ArchiveCorrupt: 502,
    errors.BodyTooLarge: 413,
    errors.Conflict: 409,
    errors.ContractBroken: 409,
    errors.DeadlineExceeded: 504,
    errors.Draining: 503,
    errors.ForeignOrigin: 403,
    errors.InvalidArchive: 422,
    errors.InvalidGraph: 422,
    errors.InvalidInput: 400,
    errors.InvalidRecord: 500,
    errors.InvalidReference: 400,
    errors.InvalidRequest: 400,
    errors.InvalidSettings: 500,
    errors.LabelNotFound: 404,
    errors.LabelProtected: 409,
    errors.LoadFailed: 500,
    errors.MarwayError: 500,
    errors.Misdirected: 421,
    errors.ModelError: 500,
    errors.ModelLoading: 503,
    errors.ModelNotFound: 404,
    errors.NoPodAvailable: 503,
    errors.NoRoomToSpare: 429,
    errors.NotFound: 404,
    errors.OutcomeUnknown: 500,
    errors.Overloaded: 429,
    errors.PodNotFound: 404,
    errors.RolloutNotFound: 404,
    errors.ProofMissing: 409,
    errors.RegistryUnavailable: 503,
    errors.ReleaseRefused: 409,
    errors.RequestTooSlow: 408,
    errors.RuntimeDown: 503,
    errors.SequenceNotFound: 404,
    errors.StateConflict: 409,
    errors.Unauthenticated: 401,
    errors.Unavailable: 503,
    errors.Unimplemented: 501,
    errors.UnsupportedMedia: 415,
    errors.VersionConflict: 409,
    errors.VersionNotFound: 404,
}

DEFAULT_RETRY_AFTER_S: Final = 1.0
_BY_CODE: Final = {kind.code: kind for kind in STATUS}


class Problem(BaseModel):
    """An RFC 9457 problem document, with Marway's stable `code`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    model: str | None = None
    version: str | None = None
    node: str | None = None
    """Of the graph that was asked, where one of its nodes failed."""

    def body(self) -> bytes:
        """Return the document as it is sent: without members that say nothing."""
        return self.model_dump_json(exclude_none=True).encode()


class RefusedRelease(Problem):
    """The problem document of `marway.errors.ReleaseRefused`, with the comparison that it rests on."""

    comparison: Comparison | None = None


def status_of(error: MarwayError) -> int:
    """Return the HTTP status that stands for ``error``."""
    if isinstance(error, ModelError):
        return error.status
    # A room may have kinds of its own, such as an adapter's: they count as what they are kinds of.
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem_of(error: MarwayError, *, request_id: str | None = None) -> tuple[Problem, dict[str, str]]:
    """Return the problem document for ``error`` and the headers that go with it.

    Every 503 and 429 carries `Retry-After` in whole seconds, at least 1.
    """
    status = status_of(error)
    headers: dict[str, str] = {}
    if status in (429, 503) and not isinstance(error, ModelError):
        wait = error.retry_after_s if error.retry_after_s is not None else DEFAULT_RETRY_AFTER_S
        headers[RETRY_AFTER] = str(max(1, math.ceil(wait)))
    problem = Problem(
        title=error.title,
        status=status,
        detail=error.message,
        code=error.code,
        request_id=request_id,
        model=error.model,
        version=error.version,
        node=error.node,
    )
    if isinstance(error, ReleaseRefused):
        problem = RefusedRelease(**problem.model_dump(), comparison=error.comparison)
    return problem, headers


def parse_problem(body: bytes, *, status: int, retry_after_s: float | None = None) -> MarwayError:
    """Return the error that a problem document stands for; a document that is none gives a plain `MarwayError`."""
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        return MarwayError(
            f"unreadable error answer with status {status}: {errors.clip(body[:200].decode(errors='replace'))}"
        )
    kind = _BY_CODE.get(problem.code, MarwayError)
    if issubclass(kind, ModelError):
        return ModelError(problem.detail, status=status, model=problem.model, version=problem.version)
    if issubclass(kind, ReleaseRefused):
        try:
            comparison = RefusedRelease.model_validate_json(body).comparison
        except ValidationError:  # of another Marway: the message says it too
            comparison = None
        return kind(problem.detail, comparison=comparison, model=problem.model, version=problem.version)
    return kind(problem.detail, model=problem.model, version=problem.version, retry_after_s=retry_after_s)
