"""Where each kind of object is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from marway.records import ArchiveKind, ArchiveRef, VersionRecord

__all__ = [
    "ARCHIVES",
    "BUNDLES",
    "CONTRACTS",
    "GC",
    "GOLDEN",
    "IDENTITY",
    "MODELS",
    "PINS",
    "ROLLOUTS",
    "WHEELS",
    "archive_key",
    "archive_keys",
    "checks_prefix",
    "chunk_key",
    "chunks_prefix",
    "contract_object_key",
    "contracts_prefix",
    "evidence_prefix",
    "golden_key",
    "mark_key",
    "objects_of",
    "pin_key",
    "pins_prefix",
    "pointer_key",
    "proofs_prefix",
    "record_key",
    "records_prefix",
    "report_key",
    "reports_prefix",
    "rollout_key",
    "rollout_prefix",
    "state_key",
    "wheel_key",
]

ARCHIVES: Final = "archives/sha256/"
BUNDLES: Final = "bundles/sha256/"
"""A place of their own: a gc that knows of no bundles sees none."""
GOLDEN: Final = "golden/"
WHEELS: Final = "wheels/sha256/"
MODELS: Final = "models/"
CONTRACTS: Final = "contracts/"
ROLLOUTS: Final = "rollouts/"
PINS: Final = "pins/"
GC: Final = "gc/"
IDENTITY: Final = "registry.json"


def archive_key(archive: ArchiveRef) -> str:
    return archive_keys(archive.sha256)[archive.kind]


def archive_keys(sha256: str) -> dict[ArchiveKind, str]:
    """Return where the archive with this digest is, by what it may be."""
    return {"mar": f"{ARCHIVES}{sha256}.mar", "bundle": f"{BUNDLES}{sha256}.bundle"}


def golden_key(sha256: str) -> str:
    return f"{GOLDEN}{sha256}.json"


def wheel_key(sha256: str) -> str:
    return f"{WHEELS}{sha256}.whl"


def objects_of(record: VersionRecord) -> Iterator[str]:
    """Yield the keys of what a version is made of beside its record: who copies or keeps one needs them all."""
    yield archive_key(record.archive)
    if record.golden_sha256 is not None:
        yield golden_key(record.golden_sha256)
    yield from dict.fromkeys(wheel_key(wheel.sha256) for lock in record.environments for wheel in lock.wheels)


def records_prefix(name: str) -> str:
    return f"{MODELS}{name}/versions/"


def record_key(name: str, version: str) -> str:
    return f"{records_prefix(name)}{version}.json"


def state_key(name: str) -> str:
    return f"{MODELS}{name}/state.json"


def chunks_prefix(name: str) -> str:
    return f"{MODELS}{name}/history/"


def chunk_key(name: str, generation: int) -> str:
    return f"{chunks_prefix(name)}{generation:012d}.json"


def contracts_prefix(name: str) -> str:
    return f"{CONTRACTS}{name}/"


def contract_object_key(name: str, contract: str) -> str:
    return f"{contracts_prefix(name)}{contract}.json"


def pins_prefix(model: str, version: str) -> str:
    """Return where it is said which graphs name a version."""
    return f"{PINS}{model}/{version}/"


def pin_key(model: str, version: str, graph: str, graph_version: str) -> str:
    return f"{pins_prefix(model, version)}{graph}/{graph_version}.json"


def pointer_key(name: str) -> str:
    return f"ids/{name}.json"


def proofs_prefix(sha256: str) -> str:
    return f"proofs/{sha256}/"


def checks_prefix(sha256: str) -> str:
    return f"checks/{sha256}/"


def rollout_prefix(model: str, rollout: str) -> str:
    """Return where all that belongs to one rollout is, beside the model's state and history."""
    return f"{ROLLOUTS}{model}/{rollout}/"


def rollout_key(model: str, rollout: str) -> str:
    return f"{rollout_prefix(model, rollout)}rollout.json"


def evidence_prefix(model: str, rollout: str) -> str:
    """Return where each gateway process keeps what it has counted."""
    return f"{rollout_prefix(model, rollout)}evidence/"


def reports_prefix(model: str, rollout: str) -> str:
    return f"{rollout_prefix(model, rollout)}reports/"


def report_key(model: str, rollout: str, op_id: str) -> str:
    """Return where the evidence is that a change, by its op_id, was decided on."""
    return f"{reports_prefix(model, rollout)}{op_id}.json"


def mark_key(key: str) -> str:
    return f"{GC}{key}"
