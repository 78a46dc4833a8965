"""Follows the model server: attaches the one that is up to the pool, and lets go of one that is gone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from marway.wire.runtime import RUNTIME_FILE, RuntimeInfo, read_runtime_info
from marway_sidecar.adapters.torchserve import TorchServeAdapter
from marway_sidecar.external_watch import ExternalWatch, external_addresses
from marway_sidecar.pool import ModelPool
from marway_sidecar.settings import SidecarSettings

__all__ = ["RuntimeWatch", "watch_for"]

logger = logging.getLogger(__name__)


def watch_for(settings: SidecarSettings, pool: ModelPool) -> RuntimeWatch | ExternalWatch:
    """Return what keeps ``pool`` attached: to the TorchServe of the settings if they name one, else the runtime's.

    Raises:
        InvalidSettings: They name a part of one.
    """
    if (addresses := external_addresses(settings)) is not None:
        return ExternalWatch(settings, addresses, pool)
    return RuntimeWatch(settings.runtime_dir, pool, poll_s=settings.runtime_poll_s)


class RuntimeWatch:
    """Keeps the pool attached to the TorchServe that the runtime says is up.

    Args:
        runtime_dir: The directory shared with the runtime.
        pool: What to attach it to.
        poll_s: How often to look, in seconds; a look is one `stat`.
    """

    def __init__(self, runtime_dir: Path, pool: ModelPool, *, poll_s: float) -> None:
        self._directory = runtime_dir
        self._pool = pool
        self._poll_s = poll_s
        self._seen: tuple[int, int] | None = None
        self._adapter: TorchServeAdapter | None = None

    @property
    def info(self) -> RuntimeInfo | None:
        """What the runtime says, while TorchServe is up."""
        return self._adapter.info if self._adapter is not None else None

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                try:
                    await self._look()
                except Exception:
                    # The pod depends on this task: it must outlive whatever one look runs into.
                    logger.exception("looking at %s failed", self._directory)
                await asyncio.sleep(self._poll_s)
        finally:
            if self._adapter is not None:
                await self._adapter.aclose()

    async def _look(self) -> None:
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            info = read_runtime_info(self._directory)
        except (ValueError, OSError) as exc:
            logger.error("%s cannot be read: %s", self._directory / RUNTIME_FILE, exc)
            info = None
        old = self._adapter
        if info is None:
            logger.warning("TorchServe is down" if old is not None else "waiting for TorchServe")
            self._adapter = None
        else:
            logger.info("TorchServe %s is up (pid %d)", info.versions.get("torchserve"), info.pid)
            self._adapter = TorchServeAdapter(info, runtime_dir=self._directory)
        self._pool.attach(
            self._adapter,
            memory_limit_bytes=info.memory_limit_bytes if info is not None else None,
            cpus=info.cpus if info is not None else None,
        )
        if old is not None:
            await old.aclose()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = (self._directory / RUNTIME_FILE).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns
