"""What must hold of a registry at every moment, whatever was killed."""

from __future__ import annotations

import hashlib

from marway.objects import ObjectStore
from marway.records import VersionRecord
from marway.refs import Reference, is_label
from marway.registry import Registry

__all__ = ["assert_sound"]


def assert_sound(store: ObjectStore) -> dict[str, dict[str, VersionRecord]]:
    """Assert that no archive is partial and no label or id points at nothing; return models' labels, resolved."""
    registry = Registry(store)
    for key in store.keys("archives/"):
        digest = key.rpartition("/")[2].removesuffix(".mar")
        with store.open(key) as handle:
            assert hashlib.sha256(handle.read()).hexdigest() == digest, f"{key} is partial"
    for key in store.keys("golden/"):
        digest = key.rpartition("/")[2].removesuffix(".json")
        assert hashlib.sha256(registry.golden(digest)).hexdigest() == digest, f"{key} is partial"
    for key in store.keys("ids/"):
        name = key.removeprefix("ids/").removesuffix(".json")
        pointer = registry.pointer(name)
        if pointer is None or pointer.version is None:
            continue
        if pointer.version not in registry.state(pointer.model).tombstones:
            assert_whole(store, registry.resolve(Reference(name)))
    found: dict[str, dict[str, VersionRecord]] = {}
    for name in registry.models():
        state = registry.state(name)
        assert [entry.generation for entry in registry.history(name)] == list(range(state.generation, 0, -1))
        found[name] = {}
        for label in state.labels:
            assert is_label(label)
            record = registry.resolve(Reference(name, label))
            assert_whole(store, record)
            found[name][label] = record
    return found


def assert_whole(store: ObjectStore, record: VersionRecord) -> None:
    """Assert that all that a record names is there."""
    assert store.size(f"archives/sha256/{record.archive.sha256}.mar") == record.archive.size_bytes
    if record.golden_sha256 is not None:
        assert store.size(f"golden/{record.golden_sha256}.json") is not None
