"""From a reference to a version, for callers that come straight to a pod."""

from __future__ import annotations

import time
from dataclasses import dataclass

from marway.records import ServingSettings, VersionRecord
from marway.refs import Reference
from marway.registry import Registry
from marway_sidecar.threads import Threads

__all__ = ["Resolved", "Resolver"]

_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version, how it is served now, and until when (monotonic seconds) that is taken for true."""

    record: VersionRecord
    serving: ServingSettings
    until: float


class Resolver:
    """Looks references up in the registry and remembers the answers for a moment.

    Args:
        registry: The registry; its calls block and run in ``threads``.
        threads: Where they run.
        ttl_s: How long an answer counts, in seconds.
    """

    def __init__(self, registry: Registry, threads: Threads, *, ttl_s: float) -> None:
        self._registry = registry
        self._threads = threads
        self._ttl_s = ttl_s
        self._known: dict[Reference, Resolved] = {}

    async def resolve(self, reference: Reference) -> Resolved:
        """Return the version that ``reference`` stands for.

        Raises:
            NotFound: With a message that names what exists.
            RegistryUnavailable: The registry cannot be reached.
        """
        known = self._known.get(reference)
        if known is not None and time.monotonic() < known.until:
            return known
        asked = time.monotonic()
        record, serving = await self._threads.run(self._look_up, reference)
        resolved = Resolved(record, serving, asked + self._ttl_s)
        if len(self._known) >= _MAX_ENTRIES:
            self._known.clear()
        self._known[reference] = resolved
        return resolved

    def _look_up(self, reference: Reference) -> tuple[VersionRecord, ServingSettings]:
        record = self._registry.resolve(reference)
        return record, self._registry.state(record.name).serving_for(record)
