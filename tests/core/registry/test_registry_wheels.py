"""Wheels that versions require: stored once by digest, kept while a version needs them, mended, and collected."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from marway.environments.lock import EnvironmentLock, WheelRef
from marway.errors import InvalidRecord
from marway.objects import open_store
from marway.records import VersionRecord, utc_now
from marway.registry import Registry, keys
from support.registry import record_of

NOW = utc_now()
LATER = NOW + timedelta(hours=25)


def made(directory: Path, *names: str) -> dict[str, Path]:
    """Write files that stand for wheels, and return them by their digests."""
    found = {}
    for name in names:
        path = directory / f"{name}-1.0-py3-none-any.whl"
        path.write_bytes(name.encode())
        found[hashlib.sha256(name.encode()).hexdigest()] = path
    return found


def published(registry: Registry, directory: Path, wheels: dict[str, Path], version: str = "1.0") -> VersionRecord:
    """Publish a version that is locked to these wheels."""
    locked = tuple(
        WheelRef(filename=path.name, sha256=sha256, size_bytes=path.stat().st_size) for sha256, path in wheels.items()
    )
    lock = EnvironmentLock(python="3.11", platform="linux-x86_64", wheels=locked)
    archive = directory / f"{version}.mar"
    archive.write_bytes(version.encode())
    return registry.publish(record_of(version.encode(), version=version, environments=(lock,)), archive, wheels=wheels)


def stored(registry: Registry) -> set[str]:
    return {key.removeprefix(keys.WHEELS).removesuffix(".whl") for key in registry._store.keys(keys.WHEELS)}


def test_wheels_are_stored_under_their_digests(store_url: str, tmp_path: Path) -> None:
    """In any store a wheel's bytes come back under its digest, and the record says what its version requires."""
    registry = Registry(open_store(store_url))
    wheels = made(tmp_path, "aa", "bb")
    record = published(registry, tmp_path, wheels)
    assert registry.record("intent", "1.0").environments == record.environments
    for sha256, path in wheels.items():
        assert registry.wheel_bytes(sha256) == 2
        with registry.open_wheel(sha256, start=1) as handle:
            assert handle.read() == path.read_bytes()[1:]
    assert registry.wheel_bytes("0" * 64) is None
    assert set(keys.objects_of(record)) == {
        keys.archive_key(record.archive),
        *(keys.wheel_key(sha256) for sha256 in wheels),
    }


def test_gc_keeps_wheels_that_a_version_requires(registry: Registry, tmp_path: Path) -> None:
    """A wheel of two versions goes a day after the last of them was deleted; one of nobody goes at once."""
    both, first = made(tmp_path, "both"), made(tmp_path, "first")
    published(registry, tmp_path, both | first, "1.0")
    published(registry, tmp_path, both, "2.0")
    registry._store.create(keys.wheel_key(hashlib.sha256(b"orphan").hexdigest()), b"orphan")
    registry.delete("intent", "1.0", by="test")
    assert len(registry.gc(now=NOW).marked) == 3  # the archive of 1.0, its own wheel, the orphan
    registry.gc(now=LATER)
    assert stored(registry) == set(both)
    registry.delete("intent", "2.0", by="test")
    registry.gc(now=LATER)
    registry.gc(now=LATER + timedelta(hours=25))
    assert stored(registry) == set()


def test_a_publish_takes_a_wheel_back_from_gc(registry: Registry, tmp_path: Path) -> None:
    """A wheel that gc has marked stays when a version is published that requires it, also without its file."""
    wheels = made(tmp_path, "aa")
    published(registry, tmp_path, wheels, "1.0")
    registry.delete("intent", "1.0", by="test")
    registry.gc(now=NOW)
    record = published(registry, tmp_path, wheels, "2.0")
    registry.gc(now=LATER)
    assert stored(registry) == set(wheels)
    assert registry.publish(record, tmp_path / "2.0.mar") == record


def test_a_wheel_that_is_nowhere_is_refused(registry: Registry, tmp_path: Path) -> None:
    """A version whose wheel is neither given nor stored is not published: no record would keep its promise."""
    wheels = made(tmp_path, "aa")
    record = published(registry, tmp_path, wheels, "1.0")
    registry._store.delete(keys.wheel_key(next(iter(wheels))))
    with pytest.raises(InvalidRecord, match=r"requires aa-1\.0-py3-none-any\.whl, which is neither here nor"):
        registry.publish(record, tmp_path / "1.0.mar")
    assert registry.publish(record, tmp_path / "1.0.mar", wheels=wheels) == record
    assert stored(registry) == set(wheels)


def test_scrub_finds_wheels(registry: Registry, tmp_path: Path) -> None:
    """A damaged wheel and a missing one are named, each with the version that needs it or what is wrong."""
    wheels = made(tmp_path, "aa", "bb")
    published(registry, tmp_path, wheels)
    assert list(registry.scrub()) == []
    damaged, missing = map(keys.wheel_key, wheels)
    registry._store.replace(damaged, b"other", etag=registry._store.tag(damaged) or "")
    registry._store.delete(missing)
    found = {damage.key: damage.what for damage in registry.scrub()}
    assert found.keys() == {damaged, missing}
    assert "its bytes have sha256" in found[damaged]
    assert found[missing] == "missing: intent 1.0 needs it"
    published(registry, tmp_path, wheels)
    assert list(registry.scrub()) == []
