"""How a call of the management API fails: a status, and the name of the exception that TorchServe would have thrown."""

from __future__ import annotations

from typing import Any, Final

import grpc

from marway.errors import InvalidArchive, MarwayError
from marway.wire.problems import problem_of
from marway_gateway.surfaces.grpc.status import code_of
from marway_gateway.surfaces.torchserve.errors import torchserve_exception

__all__ = ["Refused", "refusal_of"]

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
}
"""gRPC's codes of TorchServe's statuses, after its `GRPCUtils`."""


class Refused(Exception):
    """A call that is not done.

    Args:
        status: Of HTTP.
        kind: Name of TorchServe's exception.
        message: What is wrong, and what to do.
        headers: What goes with it over HTTP.
        code: Of gRPC; None means that of the status.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        code: grpc.StatusCode | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers or {}
        self.code = code or _CODES.get(status, grpc.StatusCode.INTERNAL)

    @property
    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"code": self.status, "type": self.kind, "message": self.message}


def refusal_of(error: MarwayError) -> Refused:
    """Return what stands for one of Marway's own errors."""
    problem, headers = problem_of(error)
    if isinstance(error, InvalidArchive):
        return Refused(400, "InvalidModelException", error.message)
    return Refused(problem.status, torchserve_exception(problem), error.message, headers=headers, code=code_of(error))
