"""Marway's one error tree.

Errors carry facts of the domain (model, version), never HTTP or gRPC codes: each transport translates them in one
table (`marway.wire.problems` for HTTP).

::

    MarwayError
    ├── InvalidInput              what the caller gave is wrong; nothing was changed
    │   ├── InvalidReference      a model name, version, label or id that cannot be one
    │   ├── InvalidArchive        a .mar or .bundle, or what it should be packed from
    │   ├── InvalidGraph          a graph that cannot be run, or not with what is published
    │   ├── InvalidRecord         a record or a piece of registry state
    │   ├── InvalidRequest        a predict request nobody could answer (no body, reserved key)
    │   ├── BodyTooLarge          a predict body over the configured limit
    │   ├── RequestTooSlow        a request that its client sends more slowly than is waited for
    │   ├── ForeignOrigin         a web page of somebody else's asks a port that obeys
    │   ├── Misdirected           the request names a host that this port is not
    │   ├── UnsupportedMedia      a body of a kind, or coded in a way, that is not taken
    │   └── InvalidSettings       a flag, environment variable or configuration file
    ├── NotFound                  a well-formed reference to something that does not exist
    │   ├── ModelNotFound
    │   ├── VersionNotFound
    │   ├── LabelNotFound
    │   ├── PodNotFound
    │   ├── RolloutNotFound       a label that was never rolled out
    │   └── SequenceNotFound      a sequence of requests whose state is gone, or was never there
    ├── Conflict                  the change asked for clashes with what is there
    │   ├── AnswersDiffer         a pod loaded a version, and it answered its golden examples otherwise
    │   ├── ContractBroken        a version that does not answer as a consumer of the model relies on
    │   ├── LabelProtected        a protected label, which asks for more than is there before it moves
    │   ├── ReleaseRefused        a version that is not like the one whose place it is to take
    │   ├── ProofMissing          a label to a version that no pod has proved yet
    │   ├── VersionConflict       the same name and version with other bytes
    │   └── StateConflict         a label is not where the caller thought, or moves too fast
    ├── ArchiveCorrupt            bytes that do not have the digest their record promises
    ├── LoadFailed                a model server could not load a version
    ├── ModelError                the model's own code refused or failed this request
    ├── Unimplemented             a call of a protocol that Marway speaks, which it has no use for
    ├── Unauthenticated           no token was given where one is wanted, or an unknown one
    ├── DeadlineExceeded          the caller's deadline passed first
    ├── OutcomeUnknown            a write whose reply was lost and that cannot be read back
    └── Unavailable               nothing wrong with the request: try again, perhaps elsewhere
        ├── NoPodAvailable
        ├── ModelLoading          being loaded, and will not be ready within the deadline
        ├── Overloaded            more requests than the queue admits
        │   └── NoRoomToSpare     of a request that gives way to all others
        ├── RegistryUnavailable
        ├── RuntimeDown           the model server behind a sidecar is not answering
        └── Draining              this process is stopping
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from marway.wire.comparison import Comparison

__all__ = [
    "AnswersDiffer",
    "ArchiveCorrupt",
    "BodyTooLarge",
    "Conflict",
    "ContractBroken",
    "DeadlineExceeded",
    "Draining",
    "ForeignOrigin",
    "InvalidArchive",
    "InvalidGraph",
    "InvalidInput",
    "InvalidRecord",
    "InvalidReference",
    "InvalidRequest",
    "InvalidSettings",
    "LabelNotFound",
    "LabelProtected",
    "LoadFailed",
    "MarwayError",
    "Misdirected",
    "ModelError",
    "ModelLoading",
    "ModelNotFound",
    "NoPodAvailable",
    "NoRoomToSpare",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "PodNotFound",
    "ProofMissing",
    "RegistryUnavailable",
    "ReleaseRefused",
    "RequestTooSlow",
    "RolloutNotFound",
    "RuntimeDown",
    "SequenceNotFound",
    "StateConflict",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnsupportedMedia",
    "VersionConflict",
    "VersionNotFound",
    "clip",
]


def clip(text: str, limit: int = 500) -> str:
    """Return ``text`` cut to ``limit`` characters, for untrusted text that goes into messages."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class MarwayError(Exception):
    """Root of everything Marway raises on purpose.

    Args:
        message: One sentence or two: what is wrong, and what to do about it.
        model: Model name the error is about, where there is one.
        version: Version the error is about, where there is one.
        retry_after_s: When another attempt makes sense, in seconds; only for `Unavailable`.
    """

    code: ClassVar[str] = "internal"
    """Stable name that programs may rely on."""
    title: ClassVar[str] = "Internal error"
    """The same for people; does not vary with the occurrence."""
    node: str | None = None
    """Of the graph that was asked, where one failed: `NODE`, or `NODE/NODE` in a graph of a graph."""
    request_id: str | None = None
    prediction_id: str | None = None
    status: int | None = None
    """Which request failed, which prediction, and with which HTTP status, where a client was answered so."""

    def __init_subclass__(cls, *, code: str | None = None, title: str | None = None) -> None:
        """Set a kind's code, and its title, by default the code's words; without a code it has its parent's."""
        super().__init_subclass__()
        if code is not None:
            cls.code, cls.title = code, title or code.replace("_", " ").capitalize()

    def __init__(
        self, message: str, *, model: str | None = None, version: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.model = model
        self.version = version
        self.retry_after_s = retry_after_s


class InvalidInput(MarwayError, code="invalid_input"): ...


class InvalidReference(InvalidInput, code="invalid_reference", title="Invalid model reference"): ...


class InvalidArchive(InvalidInput, code="invalid_archive"): ...


class InvalidGraph(InvalidInput, code="invalid_graph"): ...


class InvalidRecord(InvalidInput, code="invalid_record"): ...


class InvalidRequest(InvalidInput, code="invalid_request"): ...


class BodyTooLarge(InvalidInput, code="body_too_large"): ...


class RequestTooSlow(InvalidInput, code="request_too_slow"): ...


class ForeignOrigin(InvalidInput, code="foreign_origin"): ...


class Misdirected(InvalidInput, code="misdirected", title="Misdirected request"): ...


class UnsupportedMedia(InvalidInput, code="unsupported_media"): ...


class InvalidSettings(InvalidInput, code="invalid_settings"): ...


class NotFound(MarwayError, code="not_found"): ...


class ModelNotFound(NotFound, code="model_not_found"): ...


class VersionNotFound(NotFound, code="version_not_found"): ...


class LabelNotFound(NotFound, code="label_not_found"): ...


class PodNotFound(NotFound, code="pod_not_found"): ...


class RolloutNotFound(NotFound, code="rollout_not_found"): ...


class SequenceNotFound(NotFound, code="sequence_not_found"): ...


class Conflict(MarwayError, code="conflict"): ...


class AnswersDiffer(Conflict, code="answers_differ", title="Golden answers differ"): ...


class ReleaseRefused(Conflict, code="release_refused"):
    """A label stays, because the version that it was to move to fails, or answers in another form.

    Args:
        message: Why, in one line.
        comparison: How the version compares with the one that the label points at; None where it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        comparison: Comparison | None = None,
        model: str | None = None,
        version: str | None = None,
    ) -> None:
        super().__init__(message, model=model, version=version)
        self.comparison = comparison


class ContractBroken(Conflict, code="contract_broken", title="Contract of a consumer broken"): ...


class LabelProtected(Conflict, code="label_protected", title="Label is protected"): ...


class ProofMissing(Conflict, code="proof_missing", title="Version not proved"): ...


class VersionConflict(Conflict, code="version_conflict", title="Version exists with other bytes"): ...


class StateConflict(Conflict, code="state_conflict", title="State changed"): ...


class ArchiveCorrupt(MarwayError, code="archive_corrupt"): ...


class LoadFailed(MarwayError, code="load_failed", title="Model failed to load"): ...


class ModelError(MarwayError, code="model_error"):
    """The model's own code refused or failed this request.

    The HTTP-like ``status`` is what the handler chose (400-599), as `ts` exceptions carry it.
    """

    def __init__(
        self, message: str, *, status: int = 500, model: str | None = None, version: str | None = None
    ) -> None:
        super().__init__(message, model=model, version=version)
        self.status: int = status


class Unimplemented(MarwayError, code="not_implemented"): ...


class Unauthenticated(MarwayError, code="unauthenticated", title="Not authenticated"): ...


class DeadlineExceeded(MarwayError, code="deadline_exceeded"): ...


class OutcomeUnknown(MarwayError, code="outcome_unknown"): ...


class Unavailable(MarwayError, code="unavailable"): ...


class NoPodAvailable(Unavailable, code="no_pod_available"): ...


class ModelLoading(Unavailable, code="model_loading", title="Model is loading"): ...


class Overloaded(Unavailable, code="overloaded"): ...


class NoRoomToSpare(Overloaded, code="no_room_to_spare", title="No room to spare"): ...


class RegistryUnavailable(Unavailable, code="registry_unavailable"): ...


class RuntimeDown(Unavailable, code="runtime_down", title="Model server down"): ...


class Draining(Unavailable, code="draining"): ...
