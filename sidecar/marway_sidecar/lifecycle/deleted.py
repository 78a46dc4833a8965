"""Unloads versions that were deleted from the registry.

Requests for a deleted version are refused by the resolver, within the 2 s that a state may be old. This gives back what
such a version holds here: at once when somebody asked for it, else when its turn to be checked comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from marway.deadline import Deadline
from marway.errors import MarwayError, NotFound
from marway.resolve import Resolver
from marway.wire.pods import ModelStatus
from marway_sidecar.lifecycle import ModelPool

__all__ = ["DeletedVersions"]

logger = logging.getLogger(__name__)

_DRAIN_S: Final = 60.0


class DeletedVersions:
    """Looks for versions that are held here and deleted there.

    Args:
        pool: What is held.
        resolver: Knows what is deleted.
        interval_s: How often each version is looked up, in seconds. The look-ups are spread over that time, so that a
            pod with hundreds of versions asks the registry steadily and little.
    """

    def __init__(self, pool: ModelPool, resolver: Resolver, *, interval_s: float) -> None:
        self._pool = pool
        self._resolver = resolver
        self._interval_s = interval_s
        self._refused: set[str] = set()
        self._wake = asyncio.Event()

    def refused(self, model: str) -> None:
        """Look at this model soon: somebody asked for a version that is not there (any more)."""
        self._refused.add(model)
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        last = ("", "")
        while True:
            until = time.monotonic() + self._interval_s / max(1, len(self._held()))
            while (left_s := until - time.monotonic()) > 0:
                await self._check_refused(left_s)
            held = self._held()
            due = next((each for each in held if (each.name, each.version) > last), held[0] if held else None)
            if due is not None:
                last = (due.name, due.version)
                await self._check(due)

    async def _check_refused(self, timeout_s: float) -> None:
        """Wait for refused requests, and look at what is held of their models."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        self._wake.clear()
        models, self._refused = self._refused, set()
        for status in self._held():
            if status.name in models:
                await self._check(status)

    def _held(self) -> list[ModelStatus]:
        held = (status for status in self._pool.statuses() if status.state not in ("absent", "draining"))
        return sorted(held, key=lambda status: (status.name, status.version))

    async def _check(self, status: ModelStatus) -> None:
        """Unload a version if it was deleted; while the registry is away, what is loaded goes on serving."""
        try:
            await self._resolver.resolve(status.name, status.version)
            return
        except NotFound:
            started = time.monotonic()
        except MarwayError:
            return
        try:
            await self._pool.unload(status.id, Deadline.after(_DRAIN_S))
        except MarwayError as exc:
            logger.warning("%s %s was deleted and cannot be unloaded yet: %s", status.name, status.version, exc.message)
            return
        fields = {"model": status.name, "version": status.version, "duration_s": round(time.monotonic() - started, 3)}
        logger.info("unloaded a deleted version", extra={"fields": fields})
