"""Errors over gRPC: the status codes of errors, which are those of their HTTP statuses but for a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grpc import StatusCode

from marway import errors
from marway.errors import MarwayError
from marway.wire.problems import status_of

__all__ = ["code_of"]

_BY_KIND: Final[Mapping[type[MarwayError], StatusCode]] = {
    errors.AnswersDiffer: StatusCode.FAILED_PRECONDITION,
    errors.ArchiveCorrupt: StatusCode.DATA_LOSS,
    errors.BodyTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    errors.ContractBroken: StatusCode.FAILED_PRECONDITION,
    errors.LabelProtected: StatusCode.FAILED_PRECONDITION,
    errors.OutcomeUnknown: StatusCode.UNKNOWN,
    errors.ProofMissing: StatusCode.FAILED_PRECONDITION,
    errors.ReleaseRefused: StatusCode.FAILED_PRECONDITION,
    errors.RequestTooSlow: StatusCode.DEADLINE_EXCEEDED,
    errors.StateConflict: StatusCode.FAILED_PRECONDITION,
    errors.VersionConflict: StatusCode.ALREADY_EXISTS,
}
"""Errors for which gRPC has a closer word than for their HTTP status."""
_BY_STATUS: Final[Mapping[int, StatusCode]] = {
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.ABORTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: MarwayError) -> StatusCode:
    """Return the gRPC status code that stands for ``error``, or for the status that a model chose."""
    # Kinds of a room's own count as what they are kinds of.
    for kind in type(error).__mro__:
        if kind in _BY_KIND:
            return _BY_KIND[kind]
    status = status_of(error)
    return _BY_STATUS.get(status, StatusCode.INTERNAL if status >= 500 else StatusCode.INVALID_ARGUMENT)
