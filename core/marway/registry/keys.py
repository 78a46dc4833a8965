"""Where each kind of object is."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ARCHIVES",
    "GC",
    "GOLDEN",
    "IDENTITY",
    "MODELS",
    "archive_key",
    "chunk_key",
    "chunks_prefix",
    "golden_key",
    "mark_key",
    "pointer_key",
    "proofs_prefix",
    "record_key",
    "records_prefix",
    "state_key",
]

ARCHIVES: Final = "archives/sha256/"
GOLDEN: Final = "golden/"
MODELS: Final = "models/"
GC: Final = "gc/"
IDENTITY: Final = "registry.json"


def archive_key(sha256: str) -> str:
    return f"{ARCHIVES}{sha256}.mar"


def golden_key(sha256: str) -> str:
    return f"{GOLDEN}{sha256}.json"


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


def pointer_key(name: str) -> str:
    return f"ids/{name}.json"


def proofs_prefix(sha256: str) -> str:
    return f"proofs/{sha256}/"


def mark_key(key: str) -> str:
    return f"{GC}{key}"
