"""All tables of one gateway: fetched into a directory that is bounded, checked, mapped into memory, looked up in."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from marway.archive_store import ArchiveStore, ArchiveUse, FetchOutcome
from marway.errors import ArchiveCorrupt, InvalidGraph, InvalidRequest, LoadFailed, Unavailable
from marway.graphs.document import TABLE_BACKEND
from marway.records import VersionRecord
from marway.registry import Registry
from marway.resolve.reader import LookUps
from marway.resolve.resolved import Resolved
from marway_gateway.graph.tables.table import Table
from marway_gateway.observe.metrics import Metrics
from marway_gateway.settings import GatewaySettings

__all__ = ["KEYS_MAX", "Tables"]

KEYS_MAX: Final = 10_000
"""Most keys of one look-up."""
_THREADS: Final = 4
"""Look-ups at once: they take microseconds, unless they wait for the disk."""
_FETCHES: Final = 2
_WAIT_S: Final = 3600.0
"""How long one request waits for a table to be here: its own deadline ends that sooner."""


class _Open:
    """A table that is open, and what keeps its file from being evicted."""

    __slots__ = ("size", "table", "use")

    def __init__(self, table: Table, use: ArchiveUse, size: int) -> None:
        self.table, self.use, self.size = table, use, size


class Tables:
    """Fetches tables when they are first asked for, keeps the ones used last, and looks rows up in them.

    Args:
        registry: Where they are published.
        directory: Where they are kept, by digest; processes may share one, and then each table is fetched once.
        limit_bytes: What it may hold.
        observe: Told each fetch's outcome and its duration in seconds.
        private: Whether the directory lies where all users of the machine may write, and must be this one's alone.
    """

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        *,
        limit_bytes: int,
        observe: Callable[[FetchOutcome, float], None],
        private: bool = False,
    ) -> None:
        self._private = directory if private else None
        self._store = ArchiveStore(directory, registry, observe=observe, limit_bytes=limit_bytes, quarantine_bytes=0)
        self._limit_bytes = limit_bytes
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._fetching = LookUps(wait_s=_WAIT_S, negative_ttl_s=0.0, clock=time.monotonic)
        self._fetches = ThreadPoolExecutor(_FETCHES, thread_name_prefix="table-fetch")
        self._look_ups = ThreadPoolExecutor(_THREADS, thread_name_prefix="table")

    @classmethod
    def of(cls, settings: GatewaySettings, registry: Registry, metrics: Metrics) -> Tables:
        """Return the tables of a gateway; nothing is there or fetched before the first look-up."""
        return cls(
            registry,
            settings.tables or Path(tempfile.gettempdir()) / f"marway-tables-{os.getuid()}",
            limit_bytes=settings.tables_bytes,
            observe=lambda outcome, _: metrics.table_fetches.labels(outcome).inc(),
            private=settings.tables is None,
        )

    async def rows(
        self, resolved: Resolved, keys: Sequence[Any], columns: Sequence[str] | None
    ) -> list[Mapping[str, Any] | None]:
        """Return the row of each key, as JSON has it; None for a key that is not in the table.

        Args:
            resolved: Which version of which table.
            keys: JSON values: whole numbers or texts, as the table's key is.
            columns: Which columns; None: all but the key.

        Raises:
            InvalidRequest: A key is of another type than the table's, or there are too many.
            InvalidGraph: The version is no table, or has no such column.
            ArchiveCorrupt: Its archive is damaged, or no table.
            Unavailable: It is not here yet, and cannot be fetched.
        """
        if len(keys) > KEYS_MAX:
            raise InvalidRequest(f"{len(keys)} keys are looked up at once; {KEYS_MAX} are most")
        table = await self.open(resolved.record)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._look_ups, table.rows, keys, columns)

    async def open(self, record: VersionRecord) -> Table:
        """Return a table, fetched if it is not here. Whoever stops waiting does not stop the fetch.

        Raises:
            InvalidGraph: The version is no table.
            ArchiveCorrupt: Its archive is damaged, or no table.
            Unavailable: It cannot be fetched.
        """
        digest = record.archive.sha256
        found = self._open.get(digest)
        if found is not None:
            self._open.move_to_end(digest)
            return found.table
        if record.backend != TABLE_BACKEND:
            raise InvalidGraph(
                f"{record.name} {record.version} is no table: `marway table publish` makes one",
                model=record.name,
                version=record.version,
            )
        return await self._fetching.once((digest,), lambda: self._fetched(record))

    async def aclose(self) -> None:
        """Give up what is being fetched, and let go of all tables."""
        self._store.close()
        await self._fetching.aclose()
        self._fetches.shutdown(wait=False, cancel_futures=True)
        self._look_ups.shutdown(wait=False, cancel_futures=True)
        while self._open:
            self._open.popitem()[1].use.close()

    async def _fetched(self, record: VersionRecord) -> Table:
        size = record.archive.size_bytes
        if size > self._limit_bytes:
            raise Unavailable(
                f"table {record.name} {record.version} has {size} bytes, and this gateway keeps {self._limit_bytes} "
                "at most (tables_bytes)",
                model=record.name,
                version=record.version,
            )
        # What is open is not evicted: those used least make room.
        while self._open and size + sum(each.size for each in self._open.values()) > self._limit_bytes:
            self._open.popitem(last=False)[1].use.close()
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._fetches, self._opened, record)
        self._open[record.archive.sha256] = found
        return found.table

    def _opened(self, record: VersionRecord) -> _Open:
        name = f"table {record.name} {record.version}"
        if self._private is not None:
            _make_private(self._private)
        try:
            use = self._store.use(record.archive)
        except LoadFailed as exc:
            raise ArchiveCorrupt(f"{name}: {exc.message}", model=record.name, version=record.version) from exc
        try:
            return _Open(Table(use.path, name), use, record.archive.size_bytes)
        except BaseException:
            use.close()
            raise


def _make_private(directory: Path) -> None:
    """Make a directory among those of other users.

    Raises:
        Unavailable: What is there is another user's, or others may write to it: what is read there could be theirs.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Unavailable(
            f"tables cannot be kept in {directory}: it is not this user's alone. Remove it, or name another directory "
            "by the gateway's setting `tables`"
        )
