"""Follows a TorchServe that Marway's runtime did not start: nothing says when it starts or stops, so it is asked."""

from __future__ import annotations

import asyncio
import logging
import os

from marway.errors import InvalidSettings, MarwayError
from marway.refs import new_ulid
from marway.wire.runtime import Addresses, RuntimeInfo
from marway_sidecar.backends.torchserve import TorchServeAdapter
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.settings import SidecarSettings

__all__ = ["ExternalWatch", "external_addresses"]

logger = logging.getLogger(__name__)

_NEEDED = ("inference", "management", "grpc_inference", "grpc_management")


def external_addresses(settings: SidecarSettings) -> Addresses | None:
    """Return where the TorchServe of the settings answers, or None when they name none.

    Raises:
        InvalidSettings: They name some of its addresses and not all.
    """
    given = {name: getattr(settings, f"torchserve_{name}") for name in _NEEDED}
    if not any(given.values()):
        return None
    missing = [f"torchserve_{name}" for name in _NEEDED if not given[name]]
    if missing:
        raise InvalidSettings(f"a TorchServe of your own needs all four addresses: {', '.join(missing)} is missing")
    return Addresses(**given, metrics="")


class ExternalWatch:
    """Keeps the pool attached to the TorchServe of the settings while it answers.

    It counts as another one, with a new boot id, when it was away, or has lost a version that we registered.

    Args:
        settings: Its key file, limits and how often it is asked.
        addresses: Where it answers.
        pool: What to attach it to.
    """

    def __init__(self, settings: SidecarSettings, addresses: Addresses, pool: ModelPool) -> None:
        self._settings = settings
        self._addresses = addresses
        self._pool = pool
        self._adapter: TorchServeAdapter | None = None
        self._attached = False
        self._versions: dict[str, str] = {}

    @property
    def info(self) -> RuntimeInfo | None:
        """What is known of it, while it is up."""
        if self._adapter is None or not self._attached:
            return None
        return self._adapter.info.model_copy(update={"versions": self._versions})

    @property
    def trouble(self) -> str:
        """Why no TorchServe is up."""
        return f"TorchServe does not answer at {self._addresses.grpc_management}"

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                try:
                    await self._look()
                except Exception:
                    # The pod depends on this task: it must outlive whatever one look runs into.
                    logger.exception("asking TorchServe at %s failed", self._addresses.grpc_management)
                await asyncio.sleep(self._settings.torchserve_probe_interval_s)
        finally:
            await self._close()

    async def _look(self) -> None:
        timeout_s = self._settings.torchserve_probe_timeout_s
        if self._adapter is None:
            self._adapter = self._new_adapter()
        try:
            lost = await self._adapter.lost(timeout_s=timeout_s)
            if not self._attached:
                version = await self._adapter.server_version(timeout_s=timeout_s)
                self._versions = {"torchserve": version} if version is not None else {}
        except MarwayError as exc:
            if self._attached:
                logger.warning("TorchServe is down: %s", exc.message)
            await self._close()
            return
        if lost:
            logger.warning("TorchServe was restarted: it lost %d versions", len(lost))
            await self._close()
            self._adapter = self._new_adapter()
        if not self._attached:
            logger.info("TorchServe answers at %s", self._addresses.grpc_management)
            self._attached = True
            self._pool.attach(self._adapter)

    async def _close(self) -> None:
        old, self._adapter = self._adapter, None
        if self._attached:
            self._attached = False
            self._pool.attach(None)
        if old is not None:
            await old.aclose()

    def _new_adapter(self) -> TorchServeAdapter:
        settings = self._settings
        info = RuntimeInfo(
            boot_id=new_ulid(),
            pid=0,  # it may be in another process name space
            addresses=self._addresses,
            model_store=settings.archive_store,
            envelope=0,
            max_request_bytes=settings.torchserve_max_request_bytes,
            memory_limit_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            versions={},
        )
        return TorchServeAdapter(
            info, key_file=settings.torchserve_key_file, batch_delay_ms=settings.torchserve_batch_delay_ms
        )
