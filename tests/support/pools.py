"""A model pool of the test's own, its versions, and requests to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marway.archive_store import ArchiveStore
from marway.deadline import Deadline
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.settings import load_settings
from marway.wire.envelope import Part, Row
from marway_sidecar.changes import Changes
from marway_sidecar.lifecycle import ModelPool, Warm
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler import Job
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads
from support.fake_server import MIB
from support.registry import publish

__all__ = ["ROW", "PoolRoom", "predict", "state"]

ROW = Row("r", [Part("data", b"x")])


class PoolRoom:
    """Makes pools over one registry and one archive store, and closes them.

    Args:
        directory: For all files.
        registry: What archives come from.
        threads: Where blocking calls run.
    """

    def __init__(self, directory: Path, registry: Registry, threads: Threads) -> None:
        self._directory = directory
        self._registry = registry
        self._threads = threads
        self._pools: list[ModelPool] = []

    def archives(
        self,
        kind: type[ArchiveStore] = ArchiveStore,
        *,
        root: Path | None = None,
        limit_bytes: int | None = None,
    ) -> ArchiveStore:
        """Return an archive store, in the room's one directory unless another is given."""
        return kind(
            root or self._directory / "store",
            self._registry,
            observe=lambda outcome, duration_s: None,
            limit_bytes=limit_bytes,
        )

    def pool(
        self,
        metrics: SidecarMetrics | None = None,
        *,
        warm: Warm | None = None,
        archives: ArchiveStore | None = None,
        changes: Changes | None = None,
        **settings: Any,
    ) -> ModelPool:
        """Return a new pool; a worker is guessed to take 10 MiB, and archives are as good as nothing."""
        given = {
            "runtime_dir": self._directory,
            "worker_base_bytes": 10 * MIB,
            "archive_memory_factor": 0.001,
            "survey_interval_s": 0.2,
            **settings,
        }
        made = ModelPool(
            archives or self.archives(),
            self._threads,
            metrics or SidecarMetrics(),
            settings=load_settings(SidecarSettings, **given),
            changes=changes or Changes(),
            warm=warm,
        )
        self._pools.append(made)
        return made

    def versions(self, count: int) -> list[VersionRecord]:
        """Publish so many models of one version each: m0, m1, …"""
        return [publish(self._registry, self._directory, f"m{number}", "1.0") for number in range(count)]

    async def aclose(self) -> None:
        """Close every pool."""
        for pool in self._pools:
            await pool.aclose()


async def predict(
    pool: ModelPool,
    record: VersionRecord,
    serving: ServingSettings | None = None,
    *,
    timeout_s: float = 30.0,
    row: Row = ROW,
) -> str:
    """Send one row as the predict route does, and return what answered: the version's name in the server."""
    job = Job([row], Deadline.after(timeout_s))
    (answer,) = await pool.predict(record, serving or ServingSettings(max_workers=1), job)
    return answer.body.decode()


def state(pool: ModelPool, record: VersionRecord) -> str:
    """Return the state of a version, "unknown" of one that nobody wanted."""
    status = pool.status_of(record.id)
    return status.state if status is not None else "unknown"
