"""How many bytes a registry has, and what for: by version and model, each object once, and all else by what it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from marway.graphs import GRAPH_BACKEND, TABLE_BACKEND
from marway.objects import ObjectStore
from marway.records import VersionRecord
from marway.registry import Registry, keys

__all__ = ["ModelUsage", "Usage", "VersionUsage", "usage_of"]

_CONTENTS: Final = (keys.ARCHIVES, keys.BUNDLES, keys.GOLDEN, keys.WHEELS)
_OF_MODELS: Final = ("observations", "feedback")
"""What may be by far the largest; a part of the key says of which model it is, where it does."""


@dataclass(frozen=True, slots=True)
class VersionUsage:
    """A version: all bytes that it needs, and those that no other version needs, which go when it is deleted."""

    version: str
    kind: str
    bytes: int
    own_bytes: int


@dataclass(slots=True)
class ModelUsage:
    """A model.

    Attributes:
        name: Which.
        bytes: What its versions need, each object once.
        own_bytes: What of that no other model needs.
        observed_bytes: What was observed of its predictions.
        versions: Its versions that are not deleted.
    """

    name: str
    bytes: int = 0
    own_bytes: int = 0
    observed_bytes: int = 0
    versions: list[VersionUsage] = field(default_factory=list)


@dataclass(slots=True)
class Usage:
    """All that is stored; what is in `parts` adds up to `bytes`.

    Attributes:
        bytes: All bytes, of the registry and of the store of observations.
        objects: How many objects these are.
        parts: Bytes by what they are: `contents` of versions, those that are `unreferenced` (`marway gc` takes them),
            and everything else by the first part of its key, such as `observations`.
        shared_bytes: What of the contents several versions need, once.
        models: Each model that has versions.
    """

    bytes: int = 0
    objects: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0
    models: list[ModelUsage] = field(default_factory=list)


def usage_of(registry: Registry, *, observations: ObjectStore | None = None) -> Usage:
    """Return what is stored. Blocks: all objects are listed, and the records of all versions read.

    Args:
        registry: Which.
        observations: Where observations are, if not in the registry's store.

    Raises:
        InvalidRecord: A record or a state is damaged: `marway gc --scrub` says which.
        RegistryUnavailable: There is no registry, or it cannot be read.
    """
    registry.check_not_lost()
    sizes: dict[str, int] = {}
    observed: Counter[str] = Counter()
    usage, parts = Usage(), Counter[str]()
    stores = (
        [registry.store] if observations is None or observations.url == registry.url else [registry.store, observations]
    )
    for store in stores:
        for key, size in store.sizes(""):
            usage.bytes += size
            usage.objects += 1
            if store is registry.store and key.startswith(_CONTENTS):
                sizes[key] = size  # which is told apart below
                continue
            part = key.partition("/")[0]
            parts[part] += size
            if part in _OF_MODELS and (model := _model_in(key)) is not None:
                observed[model] += size
    records = {
        summary.name: [registry.record(summary.name, version) for version in summary.versions]
        for summary in registry.summaries()
    }
    users: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name, found in records.items():
        for record in found:
            for key in keys.objects_of(record):
                users[key].add((name, record.version))
    usage.models = [_model(name, found, sizes, users, observed[name]) for name, found in sorted(records.items())]
    contents = sum(size for key, size in sizes.items() if key in users)
    usage.shared_bytes = sum(size for key, size in sizes.items() if len(users.get(key, ())) > 1)
    usage.parts = {"contents": contents, "unreferenced": sum(sizes.values()) - contents, **dict(sorted(parts.items()))}
    return usage


def _model_in(key: str) -> str | None:
    return next((part.removeprefix("model=") for part in PurePosixPath(key).parts if part.startswith("model=")), None)


def _model(
    name: str,
    records: list[VersionRecord],
    sizes: Mapping[str, int],
    users: Mapping[str, set[tuple[str, str]]],
    observed_bytes: int,
) -> ModelUsage:
    usage = ModelUsage(name, observed_bytes=observed_bytes)
    all_keys: set[str] = set()
    for record in records:
        needed = [key for key in keys.objects_of(record) if key in sizes]
        all_keys.update(needed)
        own = sum(sizes[key] for key in needed if len(users[key]) == 1)
        kind = record.backend if record.backend in (GRAPH_BACKEND, TABLE_BACKEND) else "model"
        usage.versions.append(VersionUsage(record.version, kind, sum(sizes[key] for key in needed), own))
    usage.bytes = sum(sizes[key] for key in all_keys)
    usage.own_bytes = sum(sizes[key] for key in all_keys if {model for model, _ in users[key]} == {name})
    return usage
