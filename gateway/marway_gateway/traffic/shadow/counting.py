"""What this process has counted of copies, kept in the registry's store so that anybody can read the report."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from marway.errors import OutcomeUnknown, RegistryUnavailable
from marway.objects import ObjectStore
from marway.refs import new_ulid
from marway.shadow.counts import ShadowCounts
from marway.shadow.report import ProcessCounts, counts_key
from marway.traffic import Traffic, run_of
from marway_gateway.traffic.own_object import put_own
from marway_gateway.traffic.shadow.shapes import BaseShape

__all__ = ["Run", "ShadowBook"]

_EVERY_S: Final = 2.0
_FORGET_S: Final = 3600.0
"""How long a run is known in which nothing is counted; what comes later is counted beside it, as of another process."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """One run of copies of a label's requests, as this process counts it.

    Attributes:
        counts: What is kept.
        process: Under which name: nobody else ever writes there.
        shape: The base's answers, as far as they were seen.
        used_at: When something was counted last, on the monotonic clock.
        written: Of what was counted, how much is in the store; None before anything is.
    """

    counts: ProcessCounts
    process: str = field(default_factory=new_ulid)
    shape: BaseShape = field(default_factory=BaseShape)
    used_at: float = 0.0
    written: bytes | None = None
    etag: str | None = None

    def of(self, version: str) -> ShadowCounts:
        """Return the counts of a version, to add to."""
        self.used_at = time.monotonic()
        return self.counts.versions.setdefault(version, ShadowCounts())


class ShadowBook:
    """The runs that this process counts.

    Args:
        store: The registry's.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._runs: dict[tuple[str, str], Run] = {}
        self._away = False

    def run(self, model: str, label: str, base: str, traffic: Traffic) -> Run:
        """Return the run that a label's copies are counted under now."""
        name = run_of(label, traffic)
        run = self._runs.get((model, name))
        if run is None:
            counts = ProcessCounts(model=model, label=label, run=name, base=base, began=traffic.began)
            run = self._runs[model, name] = Run(counts)
        return run

    async def keep(self) -> None:
        """Write what has changed every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write what has changed since the last time; where the store is away, the next time has it all."""
        for key, run in list(self._runs.items()):
            data = run.counts.model_dump_json().encode()
            if data != run.written:
                try:
                    run.etag = await asyncio.to_thread(self._put, run, data)
                    run.written = data
                    self._away = False
                except (RegistryUnavailable, OutcomeUnknown) as exc:
                    if not self._away:
                        _log.warning("what copies told is not kept for now: %s", exc)
                    self._away = True
            elif time.monotonic() - run.used_at > _FORGET_S:
                del self._runs[key]

    def _put(self, run: Run, data: bytes) -> str:
        counts = run.counts
        return put_own(self._store, counts_key(counts.model, counts.run, run.process), data, run.etag)
