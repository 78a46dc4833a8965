"""Follows the model server: attaches the one that is up to the pool, and lets go of one that is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from marway.errors import RuntimeDown
from marway.wire.runtime import RUNTIME_FILE, RuntimeInfo, read_runtime_info
from marway_sidecar.backends.external_watch import ExternalWatch, external_addresses
from marway_sidecar.backends.torchserve import TorchServeAdapter
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.settings import SidecarSettings

__all__ = ["RuntimeWatch", "watch_for"]

logger = logging.getLogger(__name__)

_SECOND_LOOK_S: Final = 0.3
"""A connection that broke says little: it is asked once more before TorchServe counts as down."""


def watch_for(settings: SidecarSettings, pool: ModelPool) -> RuntimeWatch | ExternalWatch:
    """Return what keeps ``pool`` attached: to the TorchServe of the settings if they name one, else the runtime's.

    Raises:
        InvalidSettings: They name a part of one.
    """
    if (addresses := external_addresses(settings)) is not None:
        return ExternalWatch(settings, addresses, pool)
    return RuntimeWatch(
        settings.runtime_dir,
        pool,
        poll_s=settings.runtime_poll_s,
        probe_interval_s=settings.runtime_probe_interval_s,
        probe_timeout_s=settings.runtime_probe_timeout_s,
    )


class RuntimeWatch:
    """Keeps the pool attached to the TorchServe that the runtime says is up, while it answers here too.

    The runtime takes its file away when TorchServe dies or freezes. A runtime that hangs itself does not.

    Args:
        runtime_dir: The directory shared with the runtime.
        pool: What to attach it to.
        poll_s: How often to look, in seconds; a look is one `stat`.
        probe_interval_s: How often to ask TorchServe, in seconds.
        probe_timeout_s: How long it may take to answer, in seconds.
    """

    def __init__(
        self, runtime_dir: Path, pool: ModelPool, *, poll_s: float, probe_interval_s: float, probe_timeout_s: float
    ) -> None:
        self._directory = runtime_dir
        self._pool = pool
        self._poll_s = poll_s
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._seen: tuple[int, int] | None = None
        self._adapter: TorchServeAdapter | None = None
        self._silent = False
        self._probing: asyncio.Task[None] | None = None

    @property
    def info(self) -> RuntimeInfo | None:
        """What the runtime says, while TorchServe is up."""
        return self._adapter.info if self._adapter is not None and not self._silent else None

    @property
    def trouble(self) -> str:
        """Why no TorchServe is up."""
        if self._adapter is None:
            return f"no TorchServe is up: {self._directory}/{RUNTIME_FILE} is not there"
        return f"TorchServe does not answer, though {self._directory}/{RUNTIME_FILE} says that it is up"

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
            await self._stop_probing()
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
        if info is None:
            logger.warning("TorchServe is down" if self._adapter is not None else "waiting for TorchServe")
        else:
            logger.info("TorchServe %s is up (pid %d)", info.versions.get("torchserve"), info.pid)
        await self._stop_probing()
        old = self._adapter
        if info is not None:
            self._attach(info)
            self._probing = asyncio.create_task(self._probe_for_ever(info), name="probe-torchserve")
        else:
            self._adapter = None
            self._pool.attach(None)
        if old is not None:
            await old.aclose()

    def _attach(self, info: RuntimeInfo) -> None:
        self._silent = False
        self._adapter = TorchServeAdapter(info, runtime_dir=self._directory)
        self._pool.attach(self._adapter, memory_limit_bytes=info.memory_limit_bytes, cpus=info.cpus)

    async def _stop_probing(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
            self._probing = None

    async def _probe_for_ever(self, info: RuntimeInfo) -> None:
        while True:
            await asyncio.sleep(self._probe_interval_s)
            try:
                await self._probe(info)
            except Exception:
                logger.exception("asking TorchServe at %s failed", info.addresses.grpc_management)

    async def _probe(self, info: RuntimeInfo) -> None:
        adapter = self._adapter
        assert adapter is not None
        why = await self._silence(adapter)
        if why is None and self._silent:
            logger.warning("TorchServe answers again (pid %d)", info.pid)
            self._attach(info)
        elif why is not None and not self._silent:
            logger.warning("TorchServe is down, though %s says that it is up: %s", RUNTIME_FILE, why)
            self._silent = True
            self._pool.attach(None)
            self._adapter = TorchServeAdapter(info, runtime_dir=self._directory)  # to ask; its calls are another's
        else:
            return
        await asyncio.shield(adapter.aclose())

    async def _silence(self, adapter: TorchServeAdapter) -> str | None:
        """Return what TorchServe's silence looks like, or None when it answers."""
        began = time.monotonic()
        while True:
            try:
                await adapter.answers(timeout_s=self._probe_timeout_s)
            except RuntimeDown as exc:
                if time.monotonic() - began > _SECOND_LOOK_S:
                    return exc.message
            else:
                return None
            await asyncio.sleep(_SECOND_LOOK_S)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = (self._directory / RUNTIME_FILE).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns
