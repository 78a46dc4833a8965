"""Errors over gRPC: the one table from error to status code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grpc import StatusCode

from marway import errors
from marway.errors import MarwayError, ModelError

__all__ = ["CODE", "code_of", "code_of_status"]

CODE: Final[Mapping[type[MarwayError], StatusCode]] = {
    errors.AnswersDiffer: StatusCode.FAILED_PRECONDITION,
    errors.ArchiveCorrupt: StatusCode.DATA_LOSS,
    errors.BodyTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    errors.Conflict: StatusCode.ABORTED,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.Draining: StatusCode.UNAVAILABLE,
    errors.ForeignOrigin: StatusCode.PERMISSION_DENIED,
    errors.InvalidArchive: StatusCode.INVALID_ARGUMENT,
    errors.InvalidInput: StatusCode.INVALID_ARGUMENT,
    errors.InvalidRecord: StatusCode.INTERNAL,
    errors.InvalidReference: StatusCode.INVALID_ARGUMENT,
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.InvalidSettings: StatusCode.INTERNAL,
    errors.LabelNotFound: StatusCode.NOT_FOUND,
    errors.LoadFailed: StatusCode.INTERNAL,
    errors.MarwayError: StatusCode.INTERNAL,
    errors.Misdirected: StatusCode.INVALID_ARGUMENT,
    errors.ModelError: StatusCode.INTERNAL,
    errors.ModelLoading: StatusCode.UNAVAILABLE,
    errors.ModelNotFound: StatusCode.NOT_FOUND,
    errors.NoPodAvailable: StatusCode.UNAVAILABLE,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.OutcomeUnknown: StatusCode.UNKNOWN,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.PodNotFound: StatusCode.NOT_FOUND,
    errors.ProofMissing: StatusCode.FAILED_PRECONDITION,
    errors.RegistryUnavailable: StatusCode.UNAVAILABLE,
    errors.ReleaseRefused: StatusCode.FAILED_PRECONDITION,
    errors.RequestTooSlow: StatusCode.DEADLINE_EXCEEDED,
    errors.RuntimeDown: StatusCode.UNAVAILABLE,
    errors.StateConflict: StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.Unimplemented: StatusCode.UNIMPLEMENTED,
    errors.UnsupportedMedia: StatusCode.INVALID_ARGUMENT,
    errors.VersionConflict: StatusCode.ALREADY_EXISTS,
    errors.VersionNotFound: StatusCode.NOT_FOUND,
}

_MODEL_STATUS: Final[Mapping[int, StatusCode]] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.ABORTED,
    413: StatusCode.INVALID_ARGUMENT,
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: MarwayError) -> StatusCode:
    """Return the gRPC status code that stands for ``error``."""
    if isinstance(error, ModelError):
        return code_of_status(error.status)
    # Kinds of a room's own count as what they are kinds of.
    return next(CODE[kind] for kind in type(error).__mro__ if kind in CODE)


def code_of_status(status: int) -> StatusCode:
    """Return the code for an HTTP status that a model chose, 400 or above."""
    default = StatusCode.INTERNAL if status >= 500 else StatusCode.INVALID_ARGUMENT
    return _MODEL_STATUS.get(status, default)
