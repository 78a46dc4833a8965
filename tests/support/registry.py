"""Versions published for a test, and waiting for what they cause."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from marway.records import ArchiveRef, ServingSettings, VersionRecord, utc_now
from marway.registry import Registry


async def until(condition: Callable[[], object], *, within_s: float = 10) -> None:
    """Return as soon as ``condition`` holds, and fail when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


def publish(
    registry: Registry,
    directory: Path,
    name: str = "intent",
    version: str = "1.0",
    *,
    label: str | None = "PROD",
    model_id: str | None = None,
    serving: ServingSettings | None = None,
) -> VersionRecord:
    """Publish a version whose archive is a few bytes, and point a label at it."""
    data = f"{name} {version}".encode()
    archive = directory / "some.mar"
    archive.write_bytes(data)
    record = registry.publish(
        VersionRecord(
            id=model_id or f"run-{name}-{version}",
            name=name,
            version=version,
            archive=ArchiveRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)),
            handler="handler.py",
            serving=serving or ServingSettings(),
            created_at=utc_now(),
            publisher="test",
        ),
        archive,
    )
    if label is not None:
        registry.release(name, version, label=label, by="test")
    return record
