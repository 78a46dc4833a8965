"""Registries with something in them, and waiting for what that causes."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marway.records import ArchiveKind, ArchiveRef, VersionRecord, utc_now
from marway.refs import new_model_id
from marway.registry import Registry

__all__ = ["Publish", "publish", "publisher", "record_of", "until"]

Publish = Callable[..., VersionRecord]


async def until(condition: Callable[[], object], *, within_s: float = 60) -> None:
    """Return as soon as ``condition`` holds, and fail when it does not in time, even on a machine that is slow."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


def record_of(
    data: bytes, *, name: str = "intent", version: str = "1.0", kind: ArchiveKind = "mar", **facts: Any
) -> VersionRecord:
    """Return the record of an archive with these bytes."""
    archive = ArchiveRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), kind=kind)
    known: dict[str, Any] = {
        "id": new_model_id(),
        "handler": "handler.py",
        "publisher": "test",
        "created_at": utc_now(),
    }
    return VersionRecord(name=name, version=version, archive=archive, **{**known, **facts})


def publisher(registry: Registry, scratch: Path) -> Publish:
    """Return a function that publishes a version whose bytes are made of its name and version, or given."""

    def publish(
        name: str = "intent",
        version: str = "1.0",
        *,
        data: bytes | None = None,
        golden: bytes | None = None,
        wheels: Mapping[str, Path] | None = None,
        **facts: Any,
    ) -> VersionRecord:
        data = f"{name} {version}".encode() if data is None else data
        path = scratch / f"{hashlib.sha256(data).hexdigest()}.mar"
        path.write_bytes(data)
        if golden is not None:
            facts["golden_sha256"] = hashlib.sha256(golden).hexdigest()
        record = record_of(data, name=name, version=version, **facts)
        return registry.publish(record, path, golden=golden, wheels=wheels or {})

    return publish


def publish(
    registry: Registry,
    directory: Path,
    name: str = "intent",
    version: str = "1.0",
    *,
    label: str | None = "PROD",
    model_id: str | None = None,
    **facts: Any,
) -> VersionRecord:
    """Publish a version whose archive is a few bytes, and point a label at it."""
    record = publisher(registry, directory)(name, version, id=model_id or f"run-{name}-{version}", **facts)
    if label is not None:
        registry.release(name, version, label=label, by="test")
    return record
