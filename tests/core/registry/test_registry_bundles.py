"""Bundles in a registry: kept, collected, proved and looked through as a `.mar` is, in a place of their own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from marway.errors import ArchiveCorrupt
from marway.objects import open_store
from marway.records import ArchiveRef, Proof, utc_now
from marway.registry import Registry
from support.registry import publisher, record_of

NOW = utc_now()
LATER = NOW + timedelta(hours=25)


def key_of(data: bytes) -> str:
    return f"bundles/sha256/{record_of(data).archive.sha256}.bundle"


def proof_of(sha256: str) -> Proof:
    return Proof(kind="pod", archive_sha256=sha256, server="open-inference", duration_s=1, at=utc_now(), by="test")


def test_bundles_lie_beside_archives(store_url: str, tmp_path: Path) -> None:
    """In any store: a bundle is found by its record, and proved by its digest as a `.mar` is."""
    store = open_store(store_url)
    registry = Registry(store)
    registry.create()
    record = publisher(registry, tmp_path)(data=b"bytes", kind="bundle")
    assert list(store.keys("archives/")) == []
    assert list(store.keys("bundles/")) == [key_of(b"bytes")]
    with registry.open_archive(registry.record("intent", "1.0").archive, start=2, length=2) as source:
        assert source.read() == b"te"
    registry.prove(proof_of(record.archive.sha256))
    assert registry.is_proved(record)
    with pytest.raises(ArchiveCorrupt, match="has no archive 000000000000"):
        registry.prove(proof_of("0" * 64))
    assert list(registry.scrub()) == []


def test_gc_knows_them(registry: Registry, tmp_path: Path) -> None:
    """One of no version goes a day later with its proofs; one that a version has stays."""
    registry.create()
    orphan = record_of(b"orphan").archive.sha256
    registry._store.create(key_of(b"orphan"), b"orphan")
    registry.prove(proof_of(orphan))
    publisher(registry, tmp_path)(data=b"used", kind="bundle")
    assert registry.gc(now=NOW).marked == [key_of(b"orphan")]
    assert registry.gc(now=LATER).deleted == [key_of(b"orphan")]
    assert list(registry._store.keys("proofs/")) == []
    assert list(registry._store.keys("bundles/")) == [key_of(b"used")]


@pytest.mark.parametrize("gone", [False, True], ids=["changed", "gone"])
def test_scrub_finds_damage(registry: Registry, tmp_path: Path, gone: bool) -> None:
    """Changed bytes, and a bundle that a version needs and that is not there; publishing again mends both."""
    registry.create()
    publish = publisher(registry, tmp_path)
    publish(data=b"bytes", kind="bundle", id="run-1")
    registry._store.delete(key_of(b"bytes"))
    if not gone:
        registry._store.create(key_of(b"bytes"), b"others")
    (damage,) = registry.scrub()
    assert damage.key == key_of(b"bytes")
    assert "publish the version again" in damage.mend
    publish(data=b"bytes", kind="bundle", id="run-1")
    assert list(registry.scrub()) == []


def test_a_record_of_before_is_of_a_mar() -> None:
    """Records that were written before there were bundles say no kind."""
    assert ArchiveRef.model_validate({"sha256": "0" * 64, "size_bytes": 1}).kind == "mar"
