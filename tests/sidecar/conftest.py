from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.records import ArchiveRef, VersionRecord, utc_now
from marway.refs import new_model_id
from marway.registry import Registry
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.threads import Threads


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry in a directory."""
    return Registry(DirectoryStore(tmp_path / "registry"))


@pytest.fixture
def record(tmp_path: Path, registry: Registry) -> VersionRecord:
    """A published version, whose archive is a few bytes."""
    archive = tmp_path / "some.mar"
    archive.write_bytes(b"the bytes of an archive")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return registry.publish(
        VersionRecord(
            id=new_model_id(),
            name="some",
            version="1.0",
            archive=ArchiveRef(sha256=digest, size_bytes=archive.stat().st_size),
            handler="handler.py",
            created_at=utc_now(),
            publisher="a test",
        ),
        archive,
    )


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(4)
    yield made
    made.close()


@pytest.fixture
def metrics() -> SidecarMetrics:
    return SidecarMetrics()
