"""What the registry stores, as frozen value types: version records and model state.

Readers ignore fields they do not know, so an older gateway can read what a newer archiver wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, model_serializer

from marway.archives.sequences import SequenceSettings
from marway.environments.lock import EnvironmentLock
from marway.errors import clip
from marway.features.summaries import FeatureSummary
from marway.proofs.origins import CopyOrigin
from marway.proofs.replays import Replay
from marway.protection.contracts import ContractChange, ContractRef
from marway.protection.labels import Protection, ProtectionChange
from marway.refs import check_backend, check_label, check_model_id, check_model_name, check_version
from marway.serving import ServingSettings
from marway.stored import Extensible, Frozen
from marway.traffic import RolloutChange, Traffic

__all__ = [
    "MAX_RECORD_BYTES",
    "ArchiveKind",
    "ArchiveRef",
    "BackendName",
    "GcMark",
    "HistoryChunk",
    "HistoryEntry",
    "ModelState",
    "Pointer",
    "Proof",
    "RegistryIdentity",
    "ServingChange",
    "Signature",
    "TensorSpec",
    "Tombstone",
    "TrainingFacts",
    "VersionRecord",
    "overrides",
    "utc_now",
]

MAX_RECORD_BYTES = 64 * 1024
"""Largest version record that is accepted, in bytes."""

ModelId = Annotated[str, AfterValidator(check_model_id)]
ModelName = Annotated[str, AfterValidator(check_model_name)]
Version = Annotated[str, AfterValidator(check_version)]
Label = Annotated[str, AfterValidator(check_label)]
BackendName = Annotated[str, AfterValidator(check_backend)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ArchiveKind = Literal["mar", "bundle"]
ProofKind = Annotated[str, Field(pattern=r"^[a-z][a-z_-]{0,31}$")]


def utc_now() -> datetime:
    """Return the current time, with its zone, to the microsecond."""
    return datetime.now(timezone.utc)


class ArchiveRef(Frozen):
    """The archive's bytes: their sha256 (hex), their number, and whether they are a `.mar` or a `.bundle`."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1)]
    kind: ArchiveKind = "mar"


class TensorSpec(Frozen):
    """One input or output, in the Open Inference Protocol's terms; -1 in a shape means any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Signature(Frozen):
    """What a version takes and gives."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class TrainingFacts(Frozen):
    """Where a version came from, as its training run tells it."""

    run_id: str | None = None
    dataset: str | None = None
    code_version: str | None = None
    metrics: Mapping[str, float] = Field(default_factory=dict)
    features: Mapping[str, FeatureSummary] = Field(default_factory=dict)
    """How the values of its training data are spread, by field, for what is served later to be compared with."""


class VersionRecord(Frozen):
    """One immutable version of a model: `models/<name>/versions/<version>.json`."""

    format: Literal[1] = 1
    id: ModelId
    name: ModelName
    version: Version
    archive: ArchiveRef
    backend: BackendName = "torchserve"
    """The kind of model server that its archive is for."""
    framework: str | None = None
    framework_version: str | None = None
    algorithm: str | None = None
    pool: str | None = None
    handler: str = ""  # none in a bundle
    serving: ServingSettings = ServingSettings()
    signature: Signature = Signature()
    sequences: SequenceSettings | None = None
    """How its handler's state is kept from one request of a sequence to the next; None for one that keeps none."""
    golden_sha256: Sha256 | None = None
    environments: tuple[EnvironmentLock, ...] = ()  # its requirements, for each Python and platform locked for
    training: TrainingFacts = TrainingFacts()
    created_at: datetime
    publisher: str


class ServingChange(Frozen):
    """What one change did to the overrides of ``version`` (or `*`)."""

    version: str
    set: Mapping[str, Any] = Field(default_factory=dict)
    unset: tuple[str, ...] = ()


class HistoryEntry(Extensible):
    """One acknowledged change of a model's state.

    `from` and `to` are the versions a label pointed at before and after; for a tombstone, `from` is the deleted one.
    """

    generation: int
    op_id: str
    at: datetime
    by: str
    kind: Literal["label", "rollback", "serving", "tombstone"]
    label: str | None = None
    from_version: Annotated[str | None, Field(alias="from")] = None
    to_version: Annotated[str | None, Field(alias="to")] = None
    note: str | None = None
    forced: bool = False
    serving: ServingChange | None = None
    rollout: RolloutChange | None = None
    protection: ProtectionChange | None = None
    contract: ContractChange | None = None
    copied: CopyOrigin | None = None
    approved_by: tuple[str, ...] | None = None
    """Who had agreed to this move of a protected label that asks for it."""
    undone: Annotated[int | None, Field(ge=0)] = None
    """How many releases a rollback undid that named where to; None stands for 1."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, as_usual: Callable[[HistoryEntry], dict[str, Any]]) -> dict[str, Any]:
        rare = ("serving", "rollout", "protection", "contract", "copied", "approved_by", "undone")
        return {name: value for name, value in as_usual(self).items() if name not in rare or value is not None}


class HistoryChunk(Extensible):
    """Older history entries that no longer fit the state: `models/<name>/history/<first generation>.json`."""

    format: Literal[1] = 1
    entries: tuple[HistoryEntry, ...]


class Tombstone(Extensible):
    """A deleted version: it is refused everywhere, its bytes go when gc comes."""

    at: datetime
    by: str
    note: str | None = None

    def summary(self) -> str:
        """Return when and by whom, and why if that was said, for a message."""
        why = f" ({clip(self.note, 200)})" if self.note else ""
        return f"on {self.at.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC by {clip(self.by, 100)}{why}"


def overrides(serving: Mapping[str, ServingSettings]) -> dict[str, dict[str, Any]]:
    """Return the settings that were given, as JSON, by version or `*`."""
    return {key: settings.model_dump(mode="json", exclude_unset=True) for key, settings in sorted(serving.items())}


class ModelState(Extensible):
    """All that may change about a model: `models/<name>/state.json`, written by compare-and-swap. Older entries of its
    history are in `HistoryChunk` objects.
    """

    format: Literal[1] = 1
    generation: int = 0
    labels: Mapping[Label, Version] = Field(default_factory=dict)
    serving: Annotated[Mapping[str, ServingSettings], PlainSerializer(overrides)] = Field(default_factory=dict)
    tombstones: Mapping[Version, Tombstone] = Field(default_factory=dict)
    traffic: Mapping[Label, Traffic] = Field(default_factory=dict)
    protection: Mapping[Label, Protection] = Field(default_factory=dict)
    contracts: Mapping[str, ContractRef] = Field(default_factory=dict)
    """What consumers rely on, by `consumer/name`; what each says is in an object of its own."""
    history: tuple[HistoryEntry, ...] = ()

    def serving_for(self, record: VersionRecord) -> ServingSettings:
        """Return how ``record`` is served now: its own settings under those of `*` and of its version."""
        return record.serving.override(self.serving.get("*")).override(self.serving.get(record.version))


class Pointer(Frozen):
    """`ids/<id or lower-case name>.json`: what a name or an id stands for.

    An id with upper-case letters also holds its lower-case key, with `id` saying which id that is for, so that no name
    that would match it can be taken.
    """

    kind: Literal["id", "name"]
    model: ModelName
    version: Version | None = None
    id: ModelId | None = None


class RegistryIdentity(Frozen):
    """`registry.json`: that there is a registry here, and which one. It is made on purpose and never changes."""

    format: Literal[1] = 1
    id: str
    created_at: datetime
    created_by: str


class Proof(Frozen):
    """What somebody has seen these bytes do.

    That a model server loaded them is at `proofs/<digest>/<ulid>.json`. All else is at `checks/<digest>/<ulid>.json`:
    readers from before there was anything else take an unknown kind for damage.

    Attributes:
        kind: `pack`: they were loaded when they were packed, by the server's own worker code; `pod`: by a pod that
            serves; `replay`: they answered kept inputs of callers beside another version; `contracts`: they kept what
            consumers rely on. Readers pass over others.
        archive_sha256: The bytes.
        server: Which model server, such as `torchserve`; `gateway` where pods of any kind answered through one.
        server_versions: Its version and those of what matters inside it, such as torch and Python.
        golden_sha256: The golden answers that were reproduced; None means that there are none, and it loaded.
        duration_s: How long it took.
        at: When.
        by: Who or what says so.
        replay: What came of it, where it is one.
        contracts: Digests of the contracts that were kept.
    """

    format: Literal[1] = 1
    kind: ProofKind
    archive_sha256: Sha256
    server: str
    server_versions: Mapping[str, str] = Field(default_factory=dict)
    golden_sha256: Sha256 | None = None
    duration_s: Annotated[float, Field(ge=0)]
    at: datetime
    by: str
    replay: Replay | None = None
    contracts: tuple[Sha256, ...] = ()

    @property
    def is_load(self) -> bool:
        """Whether it says that a model server loaded the bytes."""
        return self.kind in ("pack", "pod")

    @property
    def finding(self) -> str:
        """What it says, in one line."""
        if self.replay is not None:
            return self.replay.summary
        if self.kind == "contracts":
            return f"{self.server} kept {len(self.contracts)} contract{'s' * (len(self.contracts) != 1)} of consumers"
        if not self.is_load:
            return f"{self.server}: of a kind that this version of Marway does not know"
        return f"{self.server} " + (
            "reproduced its golden answers" if self.golden_sha256 else "loaded it (there are no golden answers)"
        )


class GcMark(Frozen):
    """What gc thinks of an object, `gc/<its key>`, written by compare-and-swap. `marked`: nothing referred to it then.
    `cleared`: a publish relies on it. `condemned`: it is being deleted; who wants it waits for the mark to go.
    """

    status: Literal["marked", "cleared", "condemned"]
    at: datetime
    op_id: str
